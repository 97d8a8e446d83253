#include "core/loop_watch.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <new>
#include <set>
#include <system_error>
#include <thread>

namespace node_kvm {
namespace {

constexpr int kLookAgainMilliseconds = 250;
// After this many nudges, a run has had half a minute to leave KVM_RUN. A page that some thread serves takes less. Before Linux 6.2, a
// thread that waits for a page heeds no signal.
constexpr int kPatientNudges = 120;

bool IsReadable(int fd) {
  pollfd polled{fd, POLLIN, 0};
  return poll(&polled, 1, 0) == 1;
}

// One thread serves all Workers of the process.
class Watcher {
 public:
  Watcher() : epoll_(epoll_create1(EPOLL_CLOEXEC)), stop_(eventfd(0, EFD_CLOEXEC)) {
    Observe(stop_.get(), nullptr);
    thread_ = std::thread(&Watcher::Loop, this);
    pthread_setname_np(thread_.native_handle(), "kvm-loop-watch");
  }
  ~Watcher() {
    const uint64_t one = 1;
    if (write(stop_.get(), &one, sizeof one) == sizeof one) thread_.join();
  }

  void Add(LoopWatch* watch) {
    const std::lock_guard lock(mutex_);
    watches_.insert(watch);
    Observe(watch->loop_fd(), watch);
  }
  // Returns whether other watches are left.
  bool Remove(LoopWatch* watch) {
    const std::lock_guard lock(mutex_);
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, watch->loop_fd(), nullptr);
    watches_.erase(watch);
    unread_.erase(watch);
    return !watches_.empty();
  }

 private:
  // Only edges are reported, so that an event which the loop has not taken yet wakes this thread only once.
  void Observe(int fd, LoopWatch* watch) {
    epoll_event event{EPOLLIN | EPOLLET, {watch}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  }

  void Loop() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    epoll_event events[64];
    bool waiting = false;
    for (;;) {
      const int count = epoll_wait(epoll_.get(), events, 64, waiting ? kLookAgainMilliseconds : -1);
      const std::lock_guard lock(mutex_);
      for (int index = 0; index < count; ++index) {
        auto* watch = static_cast<LoopWatch*>(events[index].data.ptr);
        if (watch == nullptr) return;
        if (watches_.count(watch) == 0) continue;
        try {
          unread_.insert(watch);
        } catch (const std::bad_alloc&) {
          watch->Nudge();
        }
      }
      // A loop that was woken for one event is not woken again for terminate() before it took the first: so look again after a while.
      std::erase_if(unread_, [](LoopWatch* watch) { return !IsReadable(watch->loop_fd()); });
      for (LoopWatch* watch : unread_) watch->Nudge();
      waiting = !unread_.empty();
    }
  }

  const OwnedFd epoll_;
  const OwnedFd stop_;
  std::mutex mutex_;
  std::set<LoopWatch*> watches_;
  std::set<LoopWatch*> unread_;
  std::thread thread_;
};

// The process's watcher exists while there are Workers. This structure is never destroyed, because the process may end while Workers exist.
struct Shared {
  std::mutex mutex;
  std::unique_ptr<Watcher> watcher;
};
Shared& OfProcess() {
  static auto* shared = new Shared;
  return *shared;
}

}  // namespace

STATIC_THREAD_LOCAL LoopWatch* LoopWatch::of_thread_ = nullptr;

LoopWatch::LoopWatch(int loop_fd) : loop_fd_(loop_fd), thread_(static_cast<pid_t>(syscall(SYS_gettid))) {}

void LoopWatch::Begin(int loop_fd) {
  if (of_thread_ != nullptr || loop_fd < 0) return;
  Shared& shared = OfProcess();
  const std::lock_guard lock(shared.mutex);
  try {
    if (shared.watcher == nullptr) shared.watcher = std::make_unique<Watcher>();
  } catch (const std::system_error&) {
    // There is no thread to be had, so this Worker's runs go unwatched.
    return;
  }
  of_thread_ = new LoopWatch(loop_fd);
  shared.watcher->Add(of_thread_);
}

void LoopWatch::End() {
  if (of_thread_ == nullptr) return;
  Shared& shared = OfProcess();
  {
    const std::lock_guard lock(shared.mutex);
    if (!shared.watcher->Remove(of_thread_)) shared.watcher.reset();
  }
  delete of_thread_;
  of_thread_ = nullptr;
}

void LoopWatch::Enter(RunPage* page) {
  const std::lock_guard lock(mutex_);
  page_ = page;
  nudges_ = 0;
  leaving_.reset();
  if (page == nullptr || !pending_) return;
  pending_ = false;
  page->NudgeNext();
}

void LoopWatch::Nudge() {
  const std::lock_guard lock(mutex_);
  if (page_ == nullptr) {
    pending_ = true;
    return;
  }
  page_->NudgeNext();
  if (++nudges_ == kPatientNudges) leaving_.emplace(thread_);
}

}  // namespace node_kvm
