// The ring of coalesced writes (api.rst 4.116, KVM_REGISTER_COALESCED_MMIO): one page for a VM, which every vCPU's descriptor maps.
// KVM fills it under a lock of its own; this side is emptied by whichever thread asks, one at a time. No N-API here.
#pragma once

#include <cstddef>
#include <mutex>

namespace node_kvm {

class CoalescedRing {
 public:
  CoalescedRing() = default;
  ~CoalescedRing();
  CoalescedRing(const CoalescedRing&) = delete;
  CoalescedRing& operator=(const CoalescedRing&) = delete;

  // Maps the ring through the VM's first vCPU; later ones have the same. A kernel without it leaves it empty.
  void Attach(int vcpu_fd);
  // Moves whole entries (struct kvm_coalesced_mmio), oldest first, into `target`. How many.
  int Drain(char* target, size_t length);

 private:
  struct Page;

  std::mutex mutex_;
  Page* ring_ = nullptr;
};

}  // namespace node_kvm
