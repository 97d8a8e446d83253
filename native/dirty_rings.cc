#include "dirty_rings.h"

#include <errno.h>
#include <sys/mman.h>

#include "owned_fd.h"

namespace node_kvm {
namespace {

// asm/kvm.h and linux/kvm.h of newer kernels; the distribution's headers may lack them.
constexpr off_t kRingPageOffset = 64;
constexpr uint32_t kDirty = 1;
constexpr uint32_t kReset = 2;
constexpr unsigned long kResetDirtyRings = _IO(KVMIO, 0xc7);

}  // namespace

DirtyRings::~DirtyRings() {
  for (const Ring& ring : rings_) munmap(ring.entries, bytes_);
}

int DirtyRings::Enable(int vm_fd, uint32_t capability, size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (bytes_ != 0) return bytes == bytes_ ? 0 : -EEXIST;
  kvm_enable_cap enable{};
  enable.cap = capability;
  enable.args[0] = bytes;
  if (IoctlUninterrupted(vm_fd, KVM_ENABLE_CAP, &enable) < 0) return -errno;
  bytes_ = bytes;
  return 0;
}

int DirtyRings::Add(int vcpu_fd) {
  const std::lock_guard lock(mutex_);
  if (bytes_ == 0) return 0;
  void* entries = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, kRingPageOffset * 4096);
  if (entries == MAP_FAILED) return -errno;
  rings_.push_back({static_cast<kvm_dirty_gfn*>(entries)});
  return 0;
}

// The state machine of an entry: api.rst 8.29. KVM publishes `flags` last, and looks at it first.
void DirtyRings::Collect(Ring* ring, std::vector<Page>* pages) const {
  const size_t count = bytes_ / sizeof(kvm_dirty_gfn);
  for (size_t seen = 0; seen < count; ++seen) {
    kvm_dirty_gfn& entry = ring->entries[ring->next % count];
    if (__atomic_load_n(&entry.flags, __ATOMIC_ACQUIRE) != kDirty) return;
    pages->push_back({entry.slot, entry.offset});
    __atomic_store_n(&entry.flags, kReset, __ATOMIC_RELEASE);
    ++ring->next;
  }
}

int DirtyRings::Harvest(int vm_fd, std::vector<Page>* pages) {
  const std::lock_guard lock(mutex_);
  if (bytes_ == 0) return -ENXIO;
  for (Ring& ring : rings_) Collect(&ring, pages);
  const int result = IoctlUninterrupted(vm_fd, kResetDirtyRings, 0);
  return result < 0 ? -errno : result;
}

}  // namespace node_kvm
