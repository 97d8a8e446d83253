#include "coalesced_ring.h"

#include <linux/kvm.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstring>

namespace node_kvm {
namespace {

constexpr size_t kPage = 4096;
constexpr uint32_t kEntries = (kPage - 2 * sizeof(uint32_t)) / sizeof(kvm_coalesced_mmio);

}  // namespace

// kvm_coalesced_mmio_ring, whose flexible array the kernel's header lays elsewhere for C++: an empty struct has a size there.
struct CoalescedRing::Page {
  uint32_t first;
  uint32_t last;
  kvm_coalesced_mmio entries[kEntries];
};

CoalescedRing::~CoalescedRing() {
  if (ring_ != nullptr) munmap(ring_, kPage);
}

void CoalescedRing::Attach(int vcpu_fd) {
  const std::lock_guard lock(mutex_);
  if (ring_ != nullptr) return;
  void* mapped = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, KVM_COALESCED_MMIO_PAGE_OFFSET * kPage);
  if (mapped != MAP_FAILED) ring_ = static_cast<Page*>(mapped);
}

int CoalescedRing::Drain(char* target, size_t length) {
  const std::lock_guard lock(mutex_);
  if (ring_ == nullptr) return 0;
  int count = 0;
  // The indices lie in a page that the process can write: they are brought into range before they are used.
  uint32_t first = ring_->first % kEntries;
  while (first != __atomic_load_n(&ring_->last, __ATOMIC_ACQUIRE) % kEntries && length >= sizeof(kvm_coalesced_mmio)) {
    memcpy(target, &ring_->entries[first], sizeof(kvm_coalesced_mmio));
    target += sizeof(kvm_coalesced_mmio);
    length -= sizeof(kvm_coalesced_mmio);
    first = (first + 1) % kEntries;
    __atomic_store_n(&ring_->first, first, __ATOMIC_RELEASE);
    ++count;
  }
  return count;
}

}  // namespace node_kvm
