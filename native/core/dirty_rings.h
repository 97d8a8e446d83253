// The dirty rings of a VM's vCPUs (api.rst 8.29, KVM_CAP_DIRTY_LOG_RING): KVM appends each page that a vCPU dirties to that vCPU's ring.
// The rings live as long as the VM, because the writes of a vCPU count even after its handle is closed. This file uses no N-API.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "core/kvm_abi.h"

namespace node_kvm {

class DirtyRings {
 public:
  struct Page {
    uint32_t slot;  // the address space is in the upper 16 bits
    uint64_t offset;
  };

  DirtyRings() = default;
  ~DirtyRings();
  DirtyRings(const DirtyRings&) = delete;
  DirtyRings& operator=(const DirtyRings&) = delete;

  // Enables rings of `bytes` each (KVM_ENABLE_CAP); to be called before any vCPU exists. Returns zero or a negative errno.
  int Enable(int vm_fd, uint32_t capability, size_t bytes);
  // Maps the ring of a new vCPU, if rings are enabled.
  int Add(int vcpu_fd);
  // Collects every dirty page, hands the entries back and protects the pages again (KVM_RESET_DIRTY_RINGS), so that KVM reports later
  // writes again: copy the pages after this call, not before. `take` gets the pages; if it throws, they come with the next call. Returns
  // zero or a negative errno: -EOVERFLOW when KVM wrote past a ring's end and pages are lost.
  int Harvest(int vm_fd, const std::function<void(const std::vector<Page>&)>& take);

 private:
  struct Ring {
    kvm_dirty_gfn* entries;
    uint32_t next = 0;
  };
  size_t Entries() const { return bytes_ / sizeof(kvm_dirty_gfn); }
  size_t Collect(Ring* ring);
  int CollectAndReset(int vm_fd);

  std::mutex mutex_;
  size_t bytes_ = 0;
  bool overflown_ = false;  // for good: KVM's own indices disagree from then on
  std::vector<Ring> rings_;
  std::vector<Page> held_;  // handed back to KVM, and not yet taken
};

}  // namespace node_kvm
