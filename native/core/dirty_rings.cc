#include "core/dirty_rings.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include <thread>

#include "core/owned_fd.h"

namespace node_kvm {
namespace {

// While the kernel has something to do for a thread (signal_pending()), it may end that thread's reset early, and then it never reports the
// guest's next writes to some of the pages. This was seen on Linux 6.18 with the signals of V8's profiler, and with Node 22 without any
// signal. A thread made for the reset alone gives the kernel nothing to do, provided that signals are blocked in it from its beginning.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

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
  void* entries = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, KVM_DIRTY_LOG_PAGE_OFFSET * 4096);
  if (entries == MAP_FAILED) return -errno;
  rings_.push_back({static_cast<kvm_dirty_gfn*>(entries)});
  return 0;
}

// api.rst 8.29 describes the states of an entry. KVM writes `flags` last and reads it first.
size_t DirtyRings::Collect(Ring* ring) {
  const size_t count = Entries();
  size_t seen = 0;
  for (; seen < count; ++seen, ++ring->next) {
    kvm_dirty_gfn& entry = ring->entries[ring->next % count];
    if (__atomic_load_n(&entry.flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY) break;
    held_.push_back({entry.slot, entry.offset});
    __atomic_store_n(&entry.flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
  }
  return seen;
}

int DirtyRings::CollectAndReset(int vm_fd) {
  const size_t before = held_.size();
  // KVM stops a vCPU while its ring still has free entries. So a full ring was written past its end. So was a ring whose entries KVM wrote
  // again before they were handed back; this was seen on a host that emulates long stretches of guest code without looking at the ring.
  for (Ring& ring : rings_) overflown_ |= Collect(&ring) == Entries();
  const int result = IoctlUninterrupted(vm_fd, KVM_RESET_DIRTY_RINGS, 0);
  if (result < 0) return -errno;
  overflown_ |= static_cast<size_t>(result) < held_.size() - before;
  return overflown_ ? -EOVERFLOW : 0;
}

int DirtyRings::Harvest(int vm_fd, const std::function<void(const std::vector<Page>&)>& take) {
  const std::lock_guard lock(mutex_);
  if (bytes_ == 0) return -ENXIO;
  // Everything that needs memory or a thread comes first: once an entry is handed back, only this code knows of its page.
  held_.reserve(held_.size() + rings_.size() * Entries());
  int result = 0;
  {
    const SignalsBlocked blocked;
    std::thread([&] { result = CollectAndReset(vm_fd); }).join();
  }
  if (result == 0) take(held_);
  // Pages from rings that were written past their ends are of no use, and must not pile up.
  if (result == 0 || overflown_) held_ = std::vector<Page>();
  return result;
}

}  // namespace node_kvm
