// A VM: its descriptor, the regions its memslots point to, and its vCPUs. Shared by all environments that hold the VM. No N-API here, so
// that the stress programs drive the same code.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "coalesced_ring.h"
#include "dirty_rings.h"
#include "owned_fd.h"
#include "region.h"
#include "run.h"

namespace node_kvm {

// KVM keeps the addresses of a memslot for as long as the VM lives, and the VM lives while any of its descriptors does. So the
// regions belong to this state, which the Vm and each of its vCPUs share, and not to an object that a collector may take first.
class VmState {
 public:
  struct Slot {
    std::shared_ptr<Region> region;
    uint64_t gpa, size, offset;
    uint32_t flags;
    // The structure that the kernel took, to be given again when a later change fails.
    std::vector<char> argument;
    unsigned long request;
  };
  // KVM_SET_USER_MEMORY_REGION or its second form, as `request` says; `argument` is the structure without its userspace_addr, which is
  // filled in here: the address is never the caller's to choose. A null region is for a slot's deletion.
  struct Change {
    unsigned long request;
    std::vector<char> argument;
    std::shared_ptr<Region> region;
    uint64_t offset;
  };

  VmState(OwnedFd fd, size_t run_page_size) : fd_(std::move(fd)), run_page_size_(run_page_size) {}
  ~VmState();
  int fd() const { return fd_.get(); }
  // KVM_GET_VCPU_MMAP_SIZE.
  size_t run_page_size() const { return run_page_size_; }

  // Zero, or a negative errno.
  int SetMemoryRegion(const Change& change);
  // All of them while no vCPU is in the guest, or none: the guest sees the table as before or as after. On failure the negative errno, and
  // in `failed` the number of the change; -EIO when the kernel would not take back what it had taken before.
  int SetMemoryRegions(const std::vector<Change>& changes, size_t* failed);
  int GetDirtyLog(uint32_t slot, char* bitmap, size_t length);
  int ClearDirtyLog(uint32_t slot, uint64_t first, uint32_t pages, char* bitmap, size_t length);
  // What the VM shares with user space through its vCPUs.
  DirtyRings& dirty_rings() { return dirty_rings_; }
  CoalescedRing& coalesced_ring() { return coalesced_ring_; }

  // The table, for those who did not make it. The generation counts changes.
  uint64_t generation() const { return generation_; }
  std::map<uint32_t, Slot> Slots(uint64_t* generation);
  // Ids are below `limit`; -ENOSPC when there are none.
  int TakeSlotId(uint32_t limit);
  void ReturnSlotId(uint32_t id);

  // Zero, or a negative errno.
  int CreateVcpu(uint32_t id, std::shared_ptr<RunPage>* page);
  std::shared_ptr<RunPage> FindVcpu(uint32_t id);
  // For all who share the VM: runs end, and none begins.
  void End();
  bool ended() const { return ended_; }

 private:
  int Apply(const Change& change);
  int Restore(const std::map<uint32_t, std::optional<Slot>>& before);
  void Drop(uint32_t slot);
  std::vector<std::shared_ptr<RunPage>> Vcpus();

  OwnedFd fd_;
  const size_t run_page_size_;
  std::mutex mutex_;
  std::map<uint32_t, Slot> slots_;
  std::vector<uint32_t> free_ids_;
  uint32_t next_id_ = 0;
  std::map<uint32_t, std::weak_ptr<RunPage>> vcpus_;
  DirtyRings dirty_rings_;
  CoalescedRing coalesced_ring_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<bool> ended_{false};
};

}  // namespace node_kvm
