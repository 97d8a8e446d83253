// The way into the guest and out. It is inlined wherever a run begins: after an exit the branch predictors are cold, and each function
// through which it returned would cost some ten nanoseconds (npm run bench).
#pragma once

#include <sys/ioctl.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/futex.h"
#include "core/run.h"

namespace node_kvm {

// The fields of the most frequent exits lie within one cache line.
constexpr size_t kShortHead = 56;
static_assert(RunPage::kUnion + sizeof kvm_run::io <= kShortHead && RunPage::kUnion + sizeof kvm_run::mmio <= kShortHead);
inline bool IsShort(const kvm_run& run) {
  return run.exit_reason == KVM_EXIT_IO || run.exit_reason == KVM_EXIT_MMIO || run.exit_reason == KVM_EXIT_HLT;
}
inline size_t HeadLength(const kvm_run& run) { return IsShort(run) ? kShortHead : RunPage::kHead; }

// The copies have lengths that the compiler knows.
inline void CopyHead(char* target, const char* source, const kvm_run& run) {
  if (IsShort(run))
    memcpy(target, source, kShortHead);
  else
    memcpy(target, source, RunPage::kHead);
}

// The length of a port access's data, as far as an area holds them.
inline size_t DataLength(const kvm_run& run) {
  return std::min<size_t>(size_t{run.io.size} * run.io.count, RunPage::kAreaSize - RunPage::kDataOffset);
}

[[gnu::always_inline]] inline int RunPage::Run(char* area, double timeout_ms) {
  if (!Acquire()) return -EBUSY;
  const int result = RunAcquired(area, timeout_ms);
  Disown();
  return result;
}

[[gnu::always_inline]] inline int RunPage::RunAcquired(char* area, double timeout_ms) {
  running_thread.run = ++runs_;
  if (due_ == Due::kExit) return Again(area);
  if (due_ == Due::kAnswer) PutAnswer(area);
  running_thread.waits_for_itself = 0;
  // This store precedes the place, which other threads look at: when they send a signal because of the place, its handler finds where to
  // store.
  running_thread.entered = run_;
  running_thread.place.Enter(ThreadPlace::kInRun);
  const int result = timeout_ms < 0 ? Enter() : EnterWithin(timeout_ms);
  running_thread.entered = nullptr;
  running_thread.place.Enter(ThreadPlace::kElsewhere);
  TakeExit(area, result);
  return result;
}

// EINTR comes from a request, from the limit, or from a signal that has nothing to do with the guest; the loop tells them apart. EAGAIN
// says that a processor which waited for INIT and SIPI was woken, perhaps by them (kvm_arch_vcpu_ioctl_run()), so it enters again.
[[gnu::always_inline]] inline int RunPage::Enter() {
  for (;;) {
    const int result = Attempt();
    if (result == -EAGAIN) continue;
    if (result != -EINTR) return result;
    if (running_thread.expired) return -ETIME;
    if (running_thread.waits_for_itself) return -EDEADLK;
    const uint32_t requests = requests_;
    if (const int answer = Answer(requests); answer != 0) return answer;
    if (requests & kParked) WaitForUnpark(requests);
  }
}

// Enters the guest once, unless there is a request. Returns the exit reason or a negative errno.
[[gnu::always_inline]] inline int RunPage::Attempt() {
  __atomic_store_n(&run_->immediate_exit, 0, __ATOMIC_RELAXED);
  entered_ = 1;
  int result = -EINTR;
  if (requests_ == 0 && !running_thread.expired && !running_thread.waits_for_itself) result = CallRun();
  entered_ = 0;
  if (const uint32_t requests = requests_; requests & (kParked | kEnded)) {
    if (requests & kParked) FutexWakeAll(entered_);
    if (requests & kEnded) result = -EBADF;
  }
  return result;
}

// Calls KVM_RUN. Returns the exit reason or a negative errno.
[[gnu::always_inline]] inline int RunPage::CallRun() {
  run_->exit_reason = KVM_EXIT_UNKNOWN;
  int result = ioctl(fd_.get(), KVM_RUN, 0) == 0 ? static_cast<int>(run_->exit_reason) : -errno;
  // KVM leaves an earlier exit's bytes there; the guest is to read zeros when nobody answers.
  if (result == KVM_EXIT_IO || result == KVM_EXIT_MMIO)
    ForAnswer([this](size_t in_page, size_t, size_t length) { memset(page() + in_page, 0, length); });
  // An instruction that KVM emulates does not wait again. Its access comes as MMIO, and the caller is to make it once the page is there. If
  // not even the instruction can be read, an internal error comes, and the next try succeeds. Where the kernel's wait for a page heeds no
  // signal (before Linux 6.2), the access fails in the end. Any of these may come at once, for a page that was taken before this run.
  if (result == KVM_EXIT_MMIO && (LacksPage() || std::exchange(accesses_, false)))
    result = kMmioNotAwaited;
  else if ((result == KVM_EXIT_INTERNAL_ERROR || result == -EFAULT) && LacksPage())
    result = -EDEADLK;
  // This is the one exit that comes with an error (api.rst, KVM_EXIT_MEMORY_FAULT).
  else if ((result == -EFAULT || result == -EHWPOISON) && run_->exit_reason == KVM_EXIT_MEMORY_FAULT)
    result = KVM_EXIT_MEMORY_FAULT;
  return result;
}

// Calls `part(offset in the page, offset in an area, length)` for each part of the page's exit that KVM reads back as its answer. Nothing
// else of an exit ever goes from an area to the page.
template <typename Part>
[[gnu::always_inline]] inline void RunPage::ForAnswer(Part part) const {
  const auto in_union = [&](const void* field, size_t length) {
    const size_t offset = static_cast<const char*>(field) - page();
    part(offset, offset, length);
  };
  switch (run_->exit_reason) {
    case KVM_EXIT_IO:
      if (run_->io.direction == KVM_EXIT_IO_IN && HasData()) part(run_->io.data_offset, kDataOffset, DataLength(*run_));
      break;
    case KVM_EXIT_MMIO:
      if (!run_->mmio.is_write) in_union(run_->mmio.data, sizeof run_->mmio.data);
      break;
    case KVM_EXIT_HYPERCALL:
      in_union(&run_->hypercall.ret, sizeof run_->hypercall.ret);
      break;
    case KVM_EXIT_X86_RDMSR:
      in_union(&run_->msr.data, sizeof run_->msr.data);
      [[fallthrough]];
    case KVM_EXIT_X86_WRMSR:
      in_union(&run_->msr.error, sizeof run_->msr.error);
      break;
    case KVM_EXIT_XEN:
      if (run_->xen.type == KVM_EXIT_XEN_HCALL) in_union(&run_->xen.u.hcall.result, sizeof run_->xen.u.hcall.result);
      break;
    case KVM_EXIT_HYPERV:
      if (run_->hyperv.type == KVM_EXIT_HYPERV_HCALL) in_union(&run_->hyperv.u.hcall.result, sizeof run_->hyperv.u.hcall.result);
      if (run_->hyperv.type == KVM_EXIT_HYPERV_SYNDBG) in_union(&run_->hyperv.u.syndbg.status, sizeof run_->hyperv.u.syndbg.status);
      break;
    case KVM_EXIT_TDX:
      in_union(&run_->tdx.unknown, sizeof run_->tdx.unknown);
      break;
    case KVM_EXIT_SNP_REQ_CERTS:
      in_union(&run_->snp_req_certs.npages, sizeof run_->snp_req_certs.npages);
      in_union(&run_->snp_req_certs.ret, sizeof run_->snp_req_certs.ret);
      break;
    default:
      break;
  }
}

// Whether the data of the page's port access lie within the page.
inline bool RunPage::HasData() const {
  const size_t length = std::max(DataLength(*run_), sizeof(uint64_t));
  return run_->io.data_offset <= size_ && length <= size_ - run_->io.data_offset;
}

inline void RunPage::PutAnswer(const char* area) {
  due_ = Due::kNothing;
  ForAnswer([&](size_t in_page, size_t in_area, size_t length) { memcpy(page() + in_page, area + in_area, length); });
}

inline void RunPage::TakeExit(char* area, int result) {
  CopyHead(area, page(), *run_);
  due_ = Due::kAnswer;
  if (run_->exit_reason == KVM_EXIT_IO && HasData()) {
    const size_t length = DataLength(*run_);
    const char* data = page() + run_->io.data_offset;
    if (length <= sizeof(uint64_t))
      memcpy(area + kDataOffset, data, sizeof(uint64_t));
    else
      memcpy(area + kDataOffset, data, length);
  }
  if (result == kMmioNotAwaited) {
    due_ = Due::kExit;
    untold_ = result;
  }
}

}  // namespace node_kvm
