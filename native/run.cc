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

#include "futex.h"

#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT 39
#endif
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

namespace node_kvm {
namespace {

// A change of memslots takes some hundred microseconds, a transaction of many as many times that. Far longer than that is not waste: the
// thread that applies it goes first all the while, whereas a vCPU that slept would take the processor from it, once woken, for a slice of
// milliseconds (npm run bench:threads, rebind).
constexpr std::chrono::microseconds kParkPoll{5000};

STATIC_THREAD_LOCAL kvm_run* entered = nullptr;
STATIC_THREAD_LOCAL volatile sig_atomic_t expired = 0;
STATIC_THREAD_LOCAL volatile sig_atomic_t waits_for_itself = 0;
STATIC_THREAD_LOCAL ThreadPlace place;
STATIC_THREAD_LOCAL pid_t thread_id = 0;

void SetImmediateExit(kvm_run* run) { __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_SEQ_CST); }

void OnSignal(int, siginfo_t* info, void*) {
  if (info->si_code == SI_TIMER) expired = 1;
  if (info->si_code == SI_QUEUE && entered != nullptr) waits_for_itself = 1;
  if (entered != nullptr) SetImmediateExit(entered);
}

}  // namespace

// The first that nobody handles. No SA_RESTART: KVM_RUN is to return.
int RunPage::KickSignal() {
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

namespace {

// Asked for before each run, so that the signal is open on every thread that runs a vCPU, whatever mask it was born with.
pid_t ThreadId() {
  if (thread_id == 0) {
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, RunPage::KickSignal());
    pthread_sigmask(SIG_UNBLOCK, &kick, nullptr);
    thread_id = static_cast<pid_t>(syscall(SYS_gettid));
  }
  return thread_id;
}

// One timer per thread that ever ran with a limit, sent to that thread alone.
class ThreadTimer {
 public:
  ThreadTimer() {
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = RunPage::KickSignal();
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

// What the most frequent exits say is within a cache line.
constexpr size_t kShortHead = 56;
static_assert(RunPage::kUnion + sizeof kvm_run::io <= kShortHead && RunPage::kUnion + sizeof kvm_run::mmio <= kShortHead);
bool IsShort(const kvm_run& run) {
  return run.exit_reason == KVM_EXIT_IO || run.exit_reason == KVM_EXIT_MMIO || run.exit_reason == KVM_EXIT_HLT;
}
size_t HeadLength(const kvm_run& run) { return IsShort(run) ? kShortHead : RunPage::kHead; }

// Of lengths that the compiler knows.
void CopyHead(char* target, const char* source, const kvm_run& run) {
  if (IsShort(run))
    memcpy(target, source, kShortHead);
  else
    memcpy(target, source, RunPage::kHead);
}

// Of a port access, as far as an area holds them.
size_t DataLength(const kvm_run& run) {
  return std::min<size_t>(size_t{run.io.size} * run.io.count, RunPage::kAreaSize - RunPage::kDataOffset);
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
  if (!Own(ThreadId())) return -EBUSY;
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
  Disown();
  return result;
}

// EINTR comes from a request, from the limit, or from a signal that has nothing to do with the guest: the loop tells them apart.
inline int RunPage::Enter() {
  for (;;) {
    const int result = Attempt();
    if (result != -EINTR) return result;
    if (expired) return -ETIME;
    if (waits_for_itself) return -EDEADLK;
    const uint32_t requests = requests_;
    if (const int answer = Answer(requests); answer != 0) return answer;
    if (requests & kParked) WaitForUnpark(requests);
  }
}

void RunPage::WaitForUnpark(uint32_t requests) {
  const auto over = [&] { return requests_ != requests || expired || waits_for_itself; };
  if (!PollFor(kParkPoll, over)) FutexWait(requests_, requests);
}

// Once into the guest, unless something is asked: the exit reason or a negative errno.
inline int RunPage::Attempt() {
  __atomic_store_n(&run_->immediate_exit, 0, __ATOMIC_RELAXED);
  entered_ = 1;
  int result = -EINTR;
  if (requests_ == 0 && !expired && !waits_for_itself) {
    run_->exit_reason = KVM_EXIT_UNKNOWN;
    result = ioctl(fd_.get(), KVM_RUN, 0) == 0 ? static_cast<int>(run_->exit_reason) : -errno;
    // An instruction that KVM emulates does not wait again: its access comes as MMIO, and is the caller's to make once the page is there;
    // that it cannot even be read comes as an internal error, and is none on the next try. Where the kernel's wait for a page heeds no
    // signal (before Linux 6.2), the access fails in the end.
    if (waits_for_itself && (result == KVM_EXIT_MMIO || result == KVM_EXIT_INTERNAL_ERROR || result == -EFAULT)) result = -EDEADLK;
    // api.rst, KVM_EXIT_MEMORY_FAULT: the one exit that comes with an error.
    else if ((result == -EFAULT || result == -EHWPOISON) && run_->exit_reason == KVM_EXIT_MEMORY_FAULT)
      result = KVM_EXIT_MEMORY_FAULT;
  }
  entered_ = 0;
  if (requests_ & kParked) FutexWakeAll(entered_);
  return result;
}

// What the run returns for the requests, and takes back those that are answered by it; 0 to go on.
int RunPage::Answer(uint32_t requests) {
  if (requests & kEnded) return -EBADF;
  if (requests & kKicked) return requests_ &= ~kKicked, -EINTR;
  if (requests & kNudged) return requests_ &= ~kNudged, -ERESTART;
  return 0;
}

inline void RunPage::PutAnswer(const char* area) {
  if (!answer_expected_) return;
  answer_expected_ = false;
  if (run_->exit_reason == KVM_EXIT_IO) {
    const size_t length = DataLength(*run_);
    if (run_->io.data_offset <= size_ && length <= size_ - run_->io.data_offset)
      memcpy(page() + run_->io.data_offset, area + kDataOffset, length);
  } else {
    memcpy(page() + kUnion, area + kUnion, HeadLength(*run_) - kUnion);
  }
}

inline void RunPage::TakeExit(char* area) {
  CopyHead(area, page(), *run_);
  answer_expected_ = TakesAnswer(*run_);
  if (run_->exit_reason != KVM_EXIT_IO) return;
  const size_t length = std::max(DataLength(*run_), sizeof(uint64_t));
  if (run_->io.data_offset > size_ || length > size_ - run_->io.data_offset) return;
  const char* data = page() + run_->io.data_offset;
  if (length == sizeof(uint64_t))
    memcpy(area + kDataOffset, data, sizeof(uint64_t));
  else
    memcpy(area + kDataOffset, data, length);
}

void RunPage::CopyArea(char* target, const char* source) {
  kvm_run run;
  memcpy(&run, source, kHead);
  CopyHead(target, source, run);
  if (run.exit_reason == KVM_EXIT_IO) memcpy(target + kDataOffset, source + kDataOffset, DataLength(run));
}

void RunPage::Ask(Request request) {
  // Whoever set the bit has sent the signal that it needs. Real-time signals queue up, and the queue of a user is bounded
  // (RLIMIT_SIGPENDING).
  if (requests_.fetch_or(request) & request) return;
  SetImmediateExit(run_);
  if (const pid_t thread = thread_; thread > 0)
    while (syscall(SYS_tgkill, getpid(), thread, KickSignal()) < 0 && errno == EAGAIN && thread_ == thread && (requests_ & request) != 0)
      usleep(1000);
  // It may be waiting for the end of a park.
  if (request != kParked) FutexWakeAll(requests_);
}

void RunPage::AwaitParked() {
  if (PollFor(kParkPoll, [this] { return entered_ == 0; })) return;
  while (entered_ != 0) FutexWait(entered_, 1);
}

void RunPage::WakeUnparked() { FutexWakeAll(requests_); }

void RunPage::Interrupt(pid_t thread) { syscall(SYS_tgkill, getpid(), thread, KickSignal()); }

void RunPage::EndWaitForItself(pid_t thread) {
  siginfo_t info{};
  info.si_code = SI_QUEUE;
  syscall(SYS_rt_tgsigqueueinfo, getpid(), thread, KickSignal(), &info);
}

}  // namespace node_kvm
