#include "core/vcpu_thread.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "core/run_inline.h"

namespace node_kvm {
namespace {

// A guest that writes faster than its listener takes the writes waits for the listener at this size.
constexpr size_t kQueueLimit = 1 << 20;
// Within this time a handler that has nothing to wait for is done, and its event loop has been woken.
constexpr std::chrono::microseconds kAnswerPoll{100};

// The first version of the structure of sched_setattr(2): C libraries before 2.41 do not declare it.
struct SchedulerAttributes {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
};

// A guest is better off with fewer and longer turns. A thread that wakes with a shorter turn, as the event loop does for its timers, goes
// before it at once (sched-eevdf.rst), and the guest's share of the processor stays the same. Kernels before 6.12 have one length for all
// threads, and report 0.
void AskForLongTurns() {
  SchedulerAttributes attributes{};
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) < 0 || attributes.policy != SCHED_OTHER) return;
  attributes.runtime *= 2;
  if (attributes.runtime != 0) syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace

VcpuThread::VcpuThread(std::shared_ptr<RunPage> page, int number, std::vector<QueuedRange> queued, std::function<void()> notify)
    : page_(std::move(page)), ranges_(std::move(queued)), notify_(std::move(notify)) {
  memset(area_, 0, sizeof area_);
  thread_ = std::thread(&VcpuThread::Loop, this);
  pthread_setname_np(thread_.native_handle(), ("kvm-vcpu-" + std::to_string(number)).c_str());
}

VcpuThread::~VcpuThread() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    // This is under the lock, so that it hits a run of this thread: before each run Loop() looks at ending_ under the same lock.
    if (stage_ == Stage::kRunning) page_->CallBack();
  }
  changed_.notify_all();
  {
    // The id is 0 before the thread's first step, when it does not wait for a page either.
    const LeavingThread leaving(id_);
    // The joined thread may itself wait for another thread's call to the vCPU, and that call for a page.
    const VcpuBarrier barrier;
    thread_.join();
  }
  if (stage_ == Stage::kResult && result_ >= 0) page_->TellAgain(result_, run_);
}

void VcpuThread::CallBack() {
  const std::lock_guard lock(mutex_);
  if (stage_ == Stage::kGo) called_back_ = true;
  if (stage_ == Stage::kRunning) page_->CallBack();
}

void VcpuThread::Loop() {
  // The runtime's signals are for its own threads; the signal used here is a real-time one.
  sigset_t runtime;
  sigfillset(&runtime);
  for (int signal = SIGRTMIN; signal <= SIGRTMAX; ++signal) sigdelset(&runtime, signal);
  for (const int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP}) sigdelset(&runtime, fault);
  pthread_sigmask(SIG_BLOCK, &runtime, nullptr);
  AskForLongTurns();
  id_ = static_cast<pid_t>(syscall(SYS_gettid));
  std::unique_lock lock(mutex_);
  for (;;) {
    AwaitGo(&lock);
    if (ending_) return;
    lock.unlock();
    const bool acquired = page_->Acquire();
    lock.lock();
    result_ = acquired ? RunAcquired(&lock) : -EBUSY;
    run_ = running_thread.run;
    stage_ = Stage::kResult;
    if (ending_) return;
    lock.unlock();
    notify_();
    lock.lock();
  }
}

void VcpuThread::AwaitGo(std::unique_lock<std::mutex>* lock) {
  const auto told = [this] { return ending_ || stage_ == Stage::kGo; };
  const auto start = std::chrono::steady_clock::now();
  if (answered_soon_ && !told()) {
    lock->unlock();
    PollFor(kAnswerPoll, told);
    lock->lock();
  }
  changed_.wait(*lock, told);
  answered_soon_ = std::chrono::steady_clock::now() - start < kAnswerPoll;
}

// This thread owns the vCPU while the stage is kRunning, and CallBack() acts only then: no other thread's run answers it.
int VcpuThread::RunAcquired(std::unique_lock<std::mutex>* lock) {
  int result = -ECANCELED;
  if (!called_back_ && !ending_) {
    stage_ = Stage::kRunning;
    lock->unlock();
    result = RunQueueing();
    lock->lock();
  }
  page_->Release();
  return result;
}

// Goes on by itself as long as the guest's exits are writes that need no answer. This thread has no event loop and serves no pages.
int VcpuThread::RunQueueing() {
  for (;;) {
    int result;
    do result = page_->RunAcquired(area_, -1);
    while (result == -ERESTART || result == -EDEADLK);
    if (result == RunPage::kMmioNotAwaited) {
      page_->AccessMade(false);
      result = KVM_EXIT_MMIO;
    }
    if (ranges_.empty() || (result != KVM_EXIT_IO && result != KVM_EXIT_MMIO) || !Queue()) return result;
  }
}

const QueuedRange* VcpuThread::RangeOf(uint64_t address, bool port) const {
  for (const QueuedRange& range : ranges_)
    if (range.port == port && address >= range.start && address - range.start < range.size) return &range;
  return nullptr;
}

// Returns whether the exit in area_ was a write that could be queued.
bool VcpuThread::Queue() {
  kvm_run run;
  memcpy(&run, area_, RunPage::kHead);
  QueuedWrite write{};
  const char* data;
  if (run.exit_reason == KVM_EXIT_IO) {
    if (run.io.direction != KVM_EXIT_IO_OUT) return false;
    write = {run.io.port,
             run.io.count,
             run.io.size,
             1,
             0,
             std::min<uint32_t>(run.io.size * run.io.count, RunPage::kAreaSize - RunPage::kDataOffset),
             0};
    data = area_ + RunPage::kDataOffset;
  } else {
    if (!run.mmio.is_write) return false;
    write = {run.mmio.phys_addr, 1, static_cast<uint8_t>(run.mmio.len), 0, 0, std::min<uint32_t>(run.mmio.len, 8), 0};
    data = reinterpret_cast<const char*>(run.mmio.data);
  }
  if (RangeOf(write.address, write.port != 0) == nullptr) return false;
  const size_t padded = (size_t{write.length} + 7) / 8 * 8;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ending_ || queue_.size() + sizeof write + padded <= kQueueLimit; });
  const bool first = queue_.empty();
  const size_t at = queue_.size();
  try {
    queue_.resize(at + sizeof write + padded);
  } catch (const std::bad_alloc&) {
    // The write is told as an exit of its own, after everything in the queue.
    return false;
  }
  memcpy(queue_.data() + at, &write, sizeof write);
  memcpy(queue_.data() + at + sizeof write, data, write.length);
  lock.unlock();
  if (first) notify_();
  return true;
}

bool VcpuThread::Go(const char* area) {
  const std::lock_guard lock(mutex_);
  if (stage_ != Stage::kIdle || ending_) return false;
  RunPage::CopyArea(area_, area);
  called_back_ = false;
  stage_ = Stage::kGo;
  changed_.notify_all();
  return true;
}

bool VcpuThread::Take(char* area, int* result) {
  const std::lock_guard lock(mutex_);
  if (stage_ != Stage::kResult) return false;
  RunPage::CopyArea(area, area_);
  *result = result_;
  stage_ = Stage::kIdle;
  return true;
}

std::vector<char> VcpuThread::TakeQueued() {
  const std::lock_guard lock(mutex_);
  std::vector<char> taken;
  taken.swap(queue_);
  changed_.notify_all();
  return taken;
}

}  // namespace node_kvm
