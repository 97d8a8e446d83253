#include "core/run.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/run_inline.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

namespace node_kvm {

constinit STATIC_THREAD_LOCAL RunningThread running_thread;

namespace {

// A change of memslots takes some hundred microseconds, and a transaction takes that for each of its changes. To poll far longer than that
// is not waste: meanwhile the thread that applies the change goes first, whereas a vCPU that slept would, once woken, take the processor
// from it for a slice of milliseconds (npm run bench:threads, rebind).
constexpr std::chrono::microseconds kParkPoll{5000};

void SetImmediateExit(kvm_run* run) { __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_SEQ_CST); }

void OnSignal(int, siginfo_t* info, void*) {
  if (info->si_code == SI_TIMER) running_thread.expired = 1;
  if (info->si_code == SI_QUEUE && running_thread.entered != nullptr) running_thread.waits_for_itself = 1;
  if (running_thread.entered != nullptr) SetImmediateExit(running_thread.entered);
}

}  // namespace

// Takes the first signal that has no handler. It is set without SA_RESTART, because KVM_RUN is to return.
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

// Each thread that ever ran with a limit has one timer, whose signal goes to that thread alone.
class ThreadTimer {
 public:
  ThreadTimer() {
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = RunPage::KickSignal();
    event.sigev_notify_thread_id = running_thread.id;
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
  // A signal that is already pending is delivered on the way out of timer_settime, so that none strays into the next run.
  void Disarm() {
    const itimerspec none{};
    timer_settime(timer_, 0, &none, nullptr);
    running_thread.expired = 0;
  }

 private:
  timer_t timer_{};
  bool made_ = false;
};

}  // namespace

// Called before a thread's first run: the signal must be unblocked on every thread that runs a vCPU, whatever mask the thread was born
// with.
pid_t RunPage::BeginThread() {
  sigset_t kick;
  sigemptyset(&kick);
  sigaddset(&kick, KickSignal());
  pthread_sigmask(SIG_UNBLOCK, &kick, nullptr);
  return running_thread.id = static_cast<pid_t>(syscall(SYS_gettid));
}

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

int RunPage::EnterWithin(double timeout_ms) {
  static thread_local ThreadTimer timer;
  if (const int error = timer.Arm(timeout_ms); error != 0) return error;
  const int result = Enter();
  timer.Disarm();
  return result;
}

int RunPage::Complete(char* area) {
  if (!Acquire()) return -EBUSY;
  running_thread.run = ++runs_;
  if (due_ == Due::kExit) {
    const int untold = Again(area);
    Disown();
    return untold;
  }
  if (due_ == Due::kAnswer) PutAnswer(area);
  running_thread.waits_for_itself = 0;
  running_thread.entered = run_;
  running_thread.place.Enter(ThreadPlace::kInRun);
  int result = AttemptToComplete();
  while (result == -EAGAIN) {
    if (const uint32_t requests = requests_; requests & kParked) WaitForUnpark(requests);
    result = running_thread.waits_for_itself ? -EDEADLK : AttemptToComplete();
  }
  running_thread.entered = nullptr;
  running_thread.place.Enter(ThreadPlace::kElsewhere);
  TakeExit(area, result);
  Disown();
  return result;
}

// Like Attempt(), but it never enters the guest: KVM_RUN completes the access that is half done and then finds immediate_exit (api.rst 5),
// which only a run of this thread clears. Returns -EAGAIN while parked.
int RunPage::AttemptToComplete() {
  entered_ = 1;
  int result = -EAGAIN;
  if (requests_ & kEnded) {
    result = -EBADF;
  } else if ((requests_ & kParked) == 0) {
    SetImmediateExit(run_);
    result = CallRun();
    // A processor that waits for INIT and SIPI has nothing half done.
    if (result == -EINTR || result == -EAGAIN) result = running_thread.waits_for_itself ? -EDEADLK : 0;
  }
  entered_ = 0;
  if (requests_ & kParked) FutexWakeAll(entered_);
  return result;
}

void RunPage::WaitForUnpark(uint32_t requests) {
  const auto over = [&] { return requests_ != requests || running_thread.expired || running_thread.waits_for_itself; };
  // A signal that arrives between the last look and the sleep wakes nobody, so the sleep is limited.
  constexpr timespec kLookAgain{0, 20'000'000};
  if (!PollFor(kParkPoll, over)) FutexWait(requests_, requests, &kLookAgain);
}

// Returns the result with which these requests end the run, and clears the requests that this result answers; 0 means go on.
int RunPage::Answer(uint32_t requests) {
  if (requests & kEnded) return -EBADF;
  if (requests & kKicked) return requests_ &= ~kKicked, -EINTR;
  if (requests & kCalledBack) return requests_ &= ~kCalledBack, -ECANCELED;
  if (requests & kNudged) return requests_ &= ~kNudged, -ERESTART;
  return 0;
}

// The call for which this waits may itself wait for a page that this thread serves (userfaults.h).
void RunPage::AwaitCall() {
  const VcpuBarrier barrier;
  while (thread_ == kInCall) sched_yield();
}

void RunPage::AccessMade(bool of_memory) {
  if (due_ != Due::kExit || untold_ != kMmioNotAwaited) return;
  due_ = Due::kAnswer;
  accesses_ = of_memory;
}

void RunPage::TellAgain(int result, uint64_t run) {
  if (!Own(kInCall)) return;
  const Disowning disowning{this};
  if (runs_ != run) return;
  due_ = Due::kExit;
  untold_ = result;
}

int RunPage::Again(char* area) {
  if (ended()) return -EBADF;
  TakeExit(area, untold_);
  return untold_;
}

void RunPage::CopyArea(char* target, const char* source) {
  kvm_run run;
  memcpy(&run, source, kHead);
  CopyHead(target, source, run);
  if (run.exit_reason == KVM_EXIT_IO) memcpy(target + kDataOffset, source + kDataOffset, DataLength(run));
}

void RunPage::Ask(Request request) {
  // The thread that set the bit has sent the signal that the bit needs. Real-time signals queue up, and the queue of a user is bounded
  // (RLIMIT_SIGPENDING).
  if (requests_.fetch_or(request) & request) return;
  SetImmediateExit(run_);
  if (const pid_t thread = thread_; thread > 0)
    while (syscall(SYS_tgkill, getpid(), thread, KickSignal()) < 0 && errno == EAGAIN && thread_ == thread && (requests_ & request) != 0)
      usleep(1000);
  // The thread may be waiting for the end of a park.
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
