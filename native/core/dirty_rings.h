// The dirty rings of a VM's vCPUs (api.rst 8.29, KVM_CAP_DIRTY_LOG_RING): KVM appends each page that a vCPU dirties to that vCPU's ring.
// They live as long as the VM: what a vCPU wrote counts, even after its handle is closed. No N-API here.
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
    uint32_t slot;  // address space in the upper 16 bits
    uint64_t offset;
  };

  DirtyRings() = default;
  ~DirtyRings();
  DirtyRings(const DirtyRings&) = delete;
  DirtyRings& operator=(const DirtyRings&) = delete;

  // KVM_ENABLE_CAP, before any vCPU exists: `bytes` for each ring. Zero, or a negative errno.
  int Enable(int vm_fd, uint32_t capability, size_t bytes);
  // A new vCPU's ring, if rings are enabled.
  int Add(int vcpu_fd);
  // Collects every dirty page, hands the entries back and protects the pages again (KVM_RESET_DIRTY_RINGS), so that what is written from
  // now on comes again: copy the pages after this, not before. `take` gets them; if it throws, they come with the next call. Zero, or a
  // negative errno: -EOVERFLOW when KVM wrote past a ring's end, and pages are lost.
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
  bool overflown_ = false;  // for good: KVM's own indices are apart then
  std::vector<Ring> rings_;
  std::vector<Page> held_;  // handed back, and not yet taken
};

}  // namespace node_kvm
