#include "core/thread_place.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "core/run.h"

namespace node_kvm {
namespace {

// A list of objects on the stacks of the threads that made them, so that nothing is allocated on the way out. It is never destroyed: a
// thread may be on its way out when the process ends.
struct LeavingThreads {
  std::mutex mutex;
  LeavingThread* first = nullptr;
};
LeavingThreads& OfProcess() {
  static auto* leaving = new LeavingThreads;
  return *leaving;
}

}  // namespace

ThreadPlace& ThreadPlace::OfThisThread() { return running_thread.place; }

ServingThread::ServingThread() : id_(static_cast<pid_t>(syscall(SYS_gettid))), place_(&ThreadPlace::OfThisThread()) {}

// The thread destroys this at its end, before its thread-local memory goes.
class ServingThreadEnd {
 public:
  ServingThreadEnd() : thread_(new ServingThread) {}
  ~ServingThreadEnd() {
    const std::lock_guard lock(thread_->mutex_);
    thread_->place_ = nullptr;
  }
  const std::shared_ptr<ServingThread>& thread() const { return thread_; }

 private:
  const std::shared_ptr<ServingThread> thread_;
};

std::shared_ptr<ServingThread> ServingThread::OfThisThread() {
  static thread_local const ServingThreadEnd ours;
  return ours.thread();
}

uint64_t ServingThread::place() {
  const std::lock_guard lock(mutex_);
  return place_ == nullptr ? 0 : place_->value();
}

void ServingThread::AddTaken(int count) {
  const std::lock_guard lock(mutex_);
  if (place_ != nullptr) place_->AddTaken(count);
}

LeavingThread::LeavingThread(pid_t thread) : thread_(thread) {
  LeavingThreads& all = OfProcess();
  const std::lock_guard lock(all.mutex);
  next_ = all.first;
  all.first = this;
}

LeavingThread::~LeavingThread() {
  LeavingThreads& all = OfProcess();
  const std::lock_guard lock(all.mutex);
  LeavingThread** link = &all.first;
  while (*link != this) link = &(*link)->next_;
  *link = next_;
}

bool LeavingThread::IsLate(pid_t thread, std::chrono::milliseconds patience) {
  const auto now = std::chrono::steady_clock::now();
  LeavingThreads& all = OfProcess();
  const std::lock_guard lock(all.mutex);
  for (const LeavingThread* leaving = all.first; leaving != nullptr; leaving = leaving->next_)
    if (leaving->thread_ == thread && now - leaving->since_ >= patience) return true;
  return false;
}

}  // namespace node_kvm
