// The ring of coalesced writes (api.rst 4.116, KVM_REGISTER_COALESCED_MMIO): one page for a VM, which every vCPU's descriptor maps.
// KVM fills it under a lock of its own. Each environment that shares the VM takes what lies in its own ranges; what is another's stays for
// it, and counts for the room there is: a full ring is an exit, that of the write which found no room. No N-API here.
#pragma once

#include <cstddef>
#include <mutex>
#include <vector>

#include "core/kvm_abi.h"

namespace node_kvm {

class CoalescedRing {
 public:
  CoalescedRing() = default;
  ~CoalescedRing();
  CoalescedRing(const CoalescedRing&) = delete;
  CoalescedRing& operator=(const CoalescedRing&) = delete;

  // Maps the ring through the VM's first vCPU; later ones have the same. A kernel without it leaves it empty.
  void Attach(int vcpu_fd);
  // A range of `owner`, which is the address of whoever asks. Zero, or a negative errno; -EEXIST when it overlaps another.
  int Register(int vm_fd, const void* owner, const kvm_coalesced_mmio_zone& zone);
  // Takes it back, and moves what waits as Drain() does, with the last of it.
  int Unregister(int vm_fd, const void* owner, const kvm_coalesced_mmio_zone& zone, char* target, size_t length);
  // Moves the owner's entries (struct kvm_coalesced_mmio), oldest first, into `target`. How many.
  int Drain(const void* owner, char* target, size_t length);
  // The owner goes: its ranges are taken back, and what waits of them is dropped. The VM may be at its end (`vm_fd` is -1 then).
  void Leave(int vm_fd, const void* owner);

 private:
  struct Range {
    kvm_coalesced_mmio_zone zone;
    const void* owner;
  };
  const void* OwnerOf(const kvm_coalesced_mmio& entry) const;
  int Move(const void* owner, char* target, size_t length);

  std::mutex mutex_;
  std::vector<Range> ranges_;
  kvm_coalesced_mmio_ring* ring_ = nullptr;
};

}  // namespace node_kvm
