// A VM: its descriptor, the regions to which its memslots point, and its vCPUs. All environments that hold the VM share this. This file
// uses no N-API, so that the stress programs drive the same code.
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
  // The result of KVM_GET_VCPU_MMAP_SIZE.
  size_t run_page_size() const { return run_page_size_; }

  // Changes of the table (memslots.h). Both return zero or a negative errno; EBADF once the VM was ended.
  int ChangeMemslot(Memslots::Change* change, Memslots::Refusal* refusal);
  // Makes all changes while no vCPU is in the guest, or none: the guest sees the table as before or as after.
  int ChangeMemslots(std::vector<Memslots::Change>* changes, Memslots::Refusal* refusal);
  // The number of the last change, and the rows that changed after a given number.
  uint64_t generation() const { return memslots_.generation(); }
  std::vector<Memslots::Row> MemslotsSince(uint64_t* generation);
  // The log of the slot, if it is in the state in which change `computed_from` left it; otherwise ESTALE.
  int GetDirtyLog(uint32_t slot, uint64_t computed_from, char* bitmap, size_t length);
  int ClearDirtyLog(uint32_t slot, uint64_t computed_from, uint64_t first, uint32_t pages, char* bitmap, size_t length);
  // The rings that the VM shares with user space through its vCPUs.
  DirtyRings& dirty_rings() { return dirty_rings_; }
  CoalescedRing& coalesced_ring() { return coalesced_ring_; }

  // Returns zero or a negative errno.
  int CreateVcpu(uint32_t id, std::shared_ptr<RunPage>* page);
  std::shared_ptr<RunPage> FindVcpu(uint32_t id);
  // Ends the VM for all environments that share it: runs end, none begins, and the memslots go. An environment that still holds the VM
  // thereby holds no guest memory.
  void End();
  bool ended() const { return ended_; }

 private:
  // A thread that has the lock may wait in the kernel until all vCPUs leave the guest. So a thread that waits for the lock waits for them,
  // too, and a page that it serves is not waited for (userfaults.h).
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
