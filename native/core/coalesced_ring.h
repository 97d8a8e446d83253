// The ring of coalesced writes (api.rst 4.116, KVM_REGISTER_COALESCED_MMIO): a VM has one page for it, and each vCPU's descriptor maps that
// page. KVM fills the ring under its own lock. Each environment that shares the VM takes the entries in its own ranges; the entries of
// other environments stay and take up room. When the ring is full, the write that found no room becomes an exit. This file uses no N-API.
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

  // Maps the ring through the VM's first vCPU; the later ones show the same page. On a kernel without the ring nothing is mapped.
  void Attach(int vcpu_fd);
  // Registers a range for `owner`, an address that identifies the environment. Returns zero or a negative errno; -EEXIST when the range
  // overlaps another.
  int Register(int vm_fd, const void* owner, const kvm_coalesced_mmio_zone& zone);
  // Unregisters the range and, as Drain() does, moves the owner's entries, for the last time with those of this range.
  int Unregister(int vm_fd, const void* owner, const kvm_coalesced_mmio_zone& zone, char* target, size_t length);
  // Moves the owner's entries (struct kvm_coalesced_mmio), oldest first, into `target` and returns their number.
  int Drain(const void* owner, char* target, size_t length);
  // Called when the owner goes: unregisters its ranges and drops its entries. If the VM has ended already, `vm_fd` is -1.
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
