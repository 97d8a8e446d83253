#include "run.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT 39
#endif
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

namespace node_kvm {
namespace {

// Up to the end of the exit union: kvm_run places it at 32, padded to 256 bytes, before the sync regs.
constexpr size_t kHead = 32 + 256;
constexpr size_t kUnion = 32;

// Reached from a signal handler, so the storage must not be allocated on first touch.
#define HANDLER_STORAGE thread_local __attribute__((tls_model("initial-exec")))
HANDLER_STORAGE kvm_run* entered = nullptr;
HANDLER_STORAGE volatile sig_atomic_t expired = 0;
HANDLER_STORAGE volatile sig_atomic_t waits_for_itself = 0;

HANDLER_STORAGE ThreadPlace place;

void StoreImmediateExit(kvm_run* run, uint8_t value) { __atomic_store_n(&run->immediate_exit, value, __ATOMIC_SEQ_CST); }

void OnSignal(int, siginfo_t* info, void*) {
  if (info->si_code == SI_TIMER) expired = 1;
  if (info->si_code == SI_QUEUE && entered != nullptr) waits_for_itself = 1;
  if (entered != nullptr) StoreImmediateExit(entered, 1);
}

// The first real-time signal that nobody handles. No SA_RESTART: KVM_RUN is to return.
int KickSignal() {
  static const int chosen = [] {
    for (int number = SIGRTMIN + 2; number < SIGRTMAX; ++number) {
      struct sigaction current {};
      if (sigaction(number, nullptr, &current) < 0 || current.sa_handler != SIG_DFL) continue;
      struct sigaction ours {};
      ours.sa_sigaction = OnSignal;
      ours.sa_flags = SA_SIGINFO;
      if (sigaction(number, &ours, nullptr) == 0) return number;
    }
    return -1;
  }();
  return chosen;
}

pid_t ThreadId() {
  static thread_local const pid_t id = static_cast<pid_t>(syscall(SYS_gettid));
  return id;
}

// One timer per thread that ever ran with a limit, sent to that thread alone.
class ThreadTimer {
 public:
  ThreadTimer() {
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = KickSignal();
    event.sigev_notify_thread_id = ThreadId();
    made_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
  }
  ~ThreadTimer() {
    if (made_) timer_delete(timer_);
  }
  int Arm(double milliseconds) {
    if (!made_) return -EAGAIN;
    const auto nanoseconds = std::max<int64_t>(1, static_cast<int64_t>(milliseconds * 1e6));
    itimerspec limit{};
    limit.it_value.tv_sec = nanoseconds / 1000000000;
    limit.it_value.tv_nsec = nanoseconds % 1000000000;
    return timer_settime(timer_, 0, &limit, nullptr) < 0 ? -errno : 0;
  }
  // A signal already pending is delivered on the way out of timer_settime, so that none strays into the next run.
  void Disarm() {
    const itimerspec none{};
    timer_settime(timer_, 0, &none, nullptr);
    expired = 0;
  }

 private:
  timer_t timer_{};
  bool made_ = false;
};

bool TakesAnswer(const kvm_run& run) {
  switch (run.exit_reason) {
    case KVM_EXIT_IO:
      return run.io.direction == KVM_EXIT_IO_IN;
    case KVM_EXIT_MMIO:
      return !run.mmio.is_write;
    case KVM_EXIT_HYPERCALL:
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
      return true;
    default:
      return false;
  }
}

}  // namespace

ThreadPlace& ThreadPlace::OfThisThread() { return place; }

int RunPage::Open(int vcpu_fd, size_t mmap_size) {
  fd_ = OwnedFd(vcpu_fd);
  if (mmap_size < kHead) return -EINVAL;
  void* mapped = mmap(nullptr, mmap_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (mapped == MAP_FAILED) return -errno;
  run_ = static_cast<kvm_run*>(mapped);
  size_ = mmap_size;
  return KickSignal() < 0 ? -ENOSPC : 0;
}

RunPage::~RunPage() {
  if (run_ != nullptr) munmap(run_, size_);
}

int RunPage::Run(char* area, double timeout_ms) {
  pid_t nobody = 0;
  if (!thread_.compare_exchange_strong(nobody, ThreadId())) return -EBUSY;
  PutAnswer(area);
  waits_for_itself = 0;
  place.Enter(ThreadPlace::kInRun);
  entered = run_;
  int result;
  if (timeout_ms < 0) {
    result = Enter();
  } else {
    static thread_local ThreadTimer timer;
    result = timer.Arm(timeout_ms);
    if (result == 0) {
      result = Enter();
      timer.Disarm();
    }
  }
  entered = nullptr;
  place.Enter(ThreadPlace::kElsewhere);
  TakeExit(area);
  thread_ = 0;
  return result;
}

int RunPage::Enter() {
  for (;;) {
    StoreImmediateExit(run_, 0);
    if (kicked_.exchange(false)) return -EINTR;
    if (expired) return -ETIME;
    if (waits_for_itself) return -EDEADLK;
    run_->exit_reason = KVM_EXIT_UNKNOWN;
    if (ioctl(fd_.get(), KVM_RUN, 0) == 0) {
      // An instruction that KVM emulates does not wait again: its access comes as MMIO, and is the caller's to make once the page is there;
      // that it cannot even be read comes as an internal error, and is none on the next try.
      const uint32_t reason = run_->exit_reason;
      if (waits_for_itself && (reason == KVM_EXIT_MMIO || reason == KVM_EXIT_INTERNAL_ERROR)) return -EDEADLK;
      return static_cast<int>(run_->exit_reason);
    }
    // Where the kernel's wait for a page heeds no signal (before Linux 6.2), the access fails in the end.
    if (waits_for_itself && errno == EFAULT) return -EDEADLK;
    // api.rst, KVM_EXIT_MEMORY_FAULT: the one exit that comes with an error.
    if ((errno == EFAULT || errno == EHWPOISON) && run_->exit_reason == KVM_EXIT_MEMORY_FAULT) return KVM_EXIT_MEMORY_FAULT;
    if (errno != EINTR) return -errno;
    // EINTR by a kick, by the limit, or by a signal that has nothing to do with the guest: the loop tells them apart.
  }
}

void RunPage::PutAnswer(const char* area) {
  if (!answer_expected_) return;
  answer_expected_ = false;
  if (run_->exit_reason == KVM_EXIT_IO) {
    const size_t length = std::min<size_t>(size_t{run_->io.size} * run_->io.count, kAreaSize - kDataOffset);
    if (run_->io.data_offset <= size_ && length <= size_ - run_->io.data_offset)
      memcpy(page() + run_->io.data_offset, area + kDataOffset, length);
  } else {
    memcpy(page() + kUnion, area + kUnion, kHead - kUnion);
  }
}

void RunPage::TakeExit(char* area) {
  memcpy(area, page(), kHead);
  answer_expected_ = TakesAnswer(*run_);
  if (run_->exit_reason != KVM_EXIT_IO) return;
  const size_t length = std::min<size_t>(size_t{run_->io.size} * run_->io.count, kAreaSize - kDataOffset);
  if (run_->io.data_offset <= size_ && length <= size_ - run_->io.data_offset)
    memcpy(area + kDataOffset, page() + run_->io.data_offset, length);
}

void RunPage::Kick() {
  kicked_ = true;
  StoreImmediateExit(run_, 1);
  const pid_t thread = thread_;
  if (thread != 0) syscall(SYS_tgkill, getpid(), thread, KickSignal());
}

void RunPage::Interrupt(pid_t thread) { syscall(SYS_tgkill, getpid(), thread, KickSignal()); }

void RunPage::EndWaitForItself(pid_t thread) {
  siginfo_t info{};
  info.si_code = SI_QUEUE;
  syscall(SYS_rt_tgsigqueueinfo, getpid(), thread, KickSignal(), &info);
}

}  // namespace node_kvm
