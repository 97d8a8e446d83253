// A VM: its descriptor, the regions its memslots point to, and its vCPUs. Shared by all environments that hold the VM. No N-API here, so
// that the stress programs drive the same code.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "core/coalesced_ring.h"
#include "core/dirty_rings.h"
#include "core/memslots.h"
#include "core/owned_fd.h"
#include "core/run.h"

namespace node_kvm {

// KVM keeps the addresses of a memslot for as long as the VM lives, and the VM lives while any of its descriptors does. So the
// regions belong to this state, which the Vm and each of its vCPUs share, and not to an object that a collector may take first.
class VmState {
 public:
  VmState(OwnedFd fd, size_t run_page_size) : fd_(std::move(fd)), run_page_size_(run_page_size), memslots_(fd_.get()) {}
  ~VmState() { fd_.Reset(); }
  int fd() const { return fd_.get(); }
  // KVM_GET_VCPU_MMAP_SIZE.
  size_t run_page_size() const { return run_page_size_; }

  // Changes of the table (memslots.h): zero, or a negative errno; EBADF once ended.
  int ChangeMemslot(Memslots::Change* change, Memslots::Refusal* refusal);
  // All of them while no vCPU is in the guest, or none: the guest sees the table as before or as after.
  int ChangeMemslots(std::vector<Memslots::Change>* changes, Memslots::Refusal* refusal);
  // The number of the last change, and the rows that changed since the one before.
  uint64_t generation() const { return memslots_.generation(); }
  std::vector<Memslots::Row> MemslotsSince(uint64_t* generation);
  // Of the slot in the state that change `computed_from` left it in; else ESTALE.
  int GetDirtyLog(uint32_t slot, uint64_t computed_from, char* bitmap, size_t length);
  int ClearDirtyLog(uint32_t slot, uint64_t computed_from, uint64_t first, uint32_t pages, char* bitmap, size_t length);
  // What the VM shares with user space through its vCPUs.
  DirtyRings& dirty_rings() { return dirty_rings_; }
  CoalescedRing& coalesced_ring() { return coalesced_ring_; }

  // Zero, or a negative errno.
  int CreateVcpu(uint32_t id, std::shared_ptr<RunPage>* page);
  std::shared_ptr<RunPage> FindVcpu(uint32_t id);
  // For all who share the VM: runs end and none begins, and the memslots go. Whoever still holds the VM holds no guest memory by it.
  void End();
  bool ended() const { return ended_; }

 private:
  // Who has the lock may wait in the kernel for all vCPUs to leave the guest, so who waits for the lock waits for them, too: a page that it
  // serves is not waited for (userfaults.h).
  class Locked {
   public:
    explicit Locked(std::mutex& mutex) : lock_(mutex) {}

   private:
    const VcpuBarrier barrier_;
    const std::lock_guard<std::mutex> lock_;
  };
  std::vector<std::shared_ptr<RunPage>> Vcpus();

  OwnedFd fd_;
  const size_t run_page_size_;
  std::mutex mutex_;
  Memslots memslots_;
  std::map<uint32_t, std::weak_ptr<RunPage>> vcpus_;
  DirtyRings dirty_rings_;
  CoalescedRing coalesced_ring_;
  std::atomic<bool> ended_{false};
};

}  // namespace node_kvm
