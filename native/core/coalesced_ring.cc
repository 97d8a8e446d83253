#include "core/coalesced_ring.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace node_kvm {
namespace {

constexpr size_t kPage = 4096;
// <linux/kvm.h> defines this as KVM_COALESCED_MMIO_MAX, in terms of the kernel's page size, which user space does not have.
constexpr uint32_t kEntries = (kPage - sizeof(kvm_coalesced_mmio_ring)) / sizeof(kvm_coalesced_mmio);
// A mark in an entry's `pio`, a field that KVM writes as 0 or 1 and never reads. It says that the entry was moved out of turn, while
// another owner's entry before it stays in the ring.
constexpr uint32_t kMoved = UINT32_MAX;

bool IsSame(const kvm_coalesced_mmio_zone& one, const kvm_coalesced_mmio_zone& other) {
  return one.pio == other.pio && one.addr == other.addr && one.size == other.size;
}
// The addresses are u64 and a zone may end at 2^64, so the ends are not computed.
bool Overlap(const kvm_coalesced_mmio_zone& one, const kvm_coalesced_mmio_zone& other) {
  return one.pio == other.pio && (one.addr < other.addr ? other.addr - one.addr < one.size : one.addr - other.addr < other.size);
}

}  // namespace

CoalescedRing::~CoalescedRing() {
  if (ring_ != nullptr) munmap(ring_, kPage);
}

void CoalescedRing::Attach(int vcpu_fd) {
  const std::lock_guard lock(mutex_);
  if (ring_ != nullptr) return;
  void* mapped = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, KVM_COALESCED_MMIO_PAGE_OFFSET * kPage);
  if (mapped != MAP_FAILED) ring_ = static_cast<kvm_coalesced_mmio_ring*>(mapped);
}

// Ranges may not overlap, for two reasons: each write has one owner; and KVM, asked to unregister a range, unregisters every range that
// covers it (kvm_vm_ioctl_unregister_coalesced_mmio()).
int CoalescedRing::Register(int vm_fd, const void* owner, const kvm_coalesced_mmio_zone& zone) {
  const std::lock_guard lock(mutex_);
  for (const Range& range : ranges_)
    if (Overlap(range.zone, zone)) return -EEXIST;
  ranges_.push_back({zone, owner});
  const int error = ioctl(vm_fd, KVM_REGISTER_COALESCED_MMIO, &zone) < 0 ? -errno : 0;
  if (error != 0) ranges_.pop_back();
  return error;
}

int CoalescedRing::Unregister(int vm_fd, const void* owner, const kvm_coalesced_mmio_zone& zone, char* target, size_t length) {
  const std::lock_guard lock(mutex_);
  const auto found =
      std::find_if(ranges_.begin(), ranges_.end(), [&](const Range& range) { return range.owner == owner && IsSame(range.zone, zone); });
  if (found == ranges_.end()) return 0;
  if (vm_fd >= 0) ioctl(vm_fd, KVM_UNREGISTER_COALESCED_MMIO, &zone);
  const int count = Move(owner, target, length);
  ranges_.erase(found);
  return count;
}

int CoalescedRing::Drain(const void* owner, char* target, size_t length) {
  const std::lock_guard lock(mutex_);
  return Move(owner, target, length);
}

void CoalescedRing::Leave(int vm_fd, const void* owner) {
  const std::lock_guard lock(mutex_);
  for (Range& range : ranges_)
    if (range.owner == owner && vm_fd >= 0) ioctl(vm_fd, KVM_UNREGISTER_COALESCED_MMIO, &range.zone);
  std::erase_if(ranges_, [owner](const Range& range) { return range.owner == owner; });
}

// Returns null when the entry's range has no owner any more.
const void* CoalescedRing::OwnerOf(const kvm_coalesced_mmio& entry) const {
  for (const auto& [zone, owner] : ranges_)
    if (zone.pio == entry.pio && entry.phys_addr >= zone.addr && entry.phys_addr - zone.addr < zone.size) return owner;
  return nullptr;
}

int CoalescedRing::Move(const void* owner, char* target, size_t length) {
  if (ring_ == nullptr) return 0;
  int count = 0;
  // The indices lie in a page that the process can write, so they are brought into range before they are used.
  uint32_t first = ring_->first % kEntries;
  const uint32_t last = __atomic_load_n(&ring_->last, __ATOMIC_ACQUIRE) % kEntries;
  bool keeps = false;
  for (uint32_t at = first; at != last && length >= sizeof(kvm_coalesced_mmio); at = (at + 1) % kEntries) {
    kvm_coalesced_mmio& entry = ring_->coalesced_mmio[at];
    const void* const whose = entry.pio == kMoved ? nullptr : OwnerOf(entry);
    if (whose == owner) {
      memcpy(target, &entry, sizeof entry);
      target += sizeof entry;
      length -= sizeof entry;
      ++count;
    }
    if (whose != nullptr && whose != owner)
      keeps = true;
    else
      entry.pio = kMoved;
    if (!keeps) first = (at + 1) % kEntries;
  }
  __atomic_store_n(&ring_->first, first, __ATOMIC_RELEASE);
  return count;
}

}  // namespace node_kvm
