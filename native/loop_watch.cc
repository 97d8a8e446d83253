#include "loop_watch.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

#include <memory>
#include <set>
#include <thread>

namespace node_kvm {
namespace {

constexpr int kLookAgainMilliseconds = 250;

bool IsReadable(int fd) {
  pollfd polled{fd, POLLIN, 0};
  return poll(&polled, 1, 0) == 1;
}

// One thread for all Workers, which stays for the life of the process.
class Watcher {
 public:
  static Watcher& OfProcess() {
    static auto* watcher = new Watcher;
    return *watcher;
  }

  void Add(LoopWatch* watch) {
    const std::lock_guard lock(mutex_);
    if (!started_) Start();
    watches_.insert(watch);
    // Edges only: what the loop has not taken yet wakes nobody a second time.
    epoll_event event{EPOLLIN | EPOLLET, {watch}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, watch->loop_fd(), &event);
  }

  void Remove(LoopWatch* watch) {
    const std::lock_guard lock(mutex_);
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, watch->loop_fd(), nullptr);
    watches_.erase(watch);
    unread_.erase(watch);
  }

 private:
  void Start() {
    epoll_ = OwnedFd(epoll_create1(EPOLL_CLOEXEC));
    std::thread thread(&Watcher::Loop, this);
    pthread_setname_np(thread.native_handle(), "kvm-loop-watch");
    thread.detach();
    started_ = true;
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
        if (watches_.count(watch) != 0) unread_.insert(watch);
      }
      // A loop that was woken for one thing is not woken again for terminate() before it took the first: so look again after a while.
      std::erase_if(unread_, [](LoopWatch* watch) { return !IsReadable(watch->loop_fd()); });
      for (LoopWatch* watch : unread_) watch->Nudge();
      waiting = !unread_.empty();
    }
  }

  std::mutex mutex_;
  OwnedFd epoll_;
  bool started_ = false;
  std::set<LoopWatch*> watches_;
  std::set<LoopWatch*> unread_;
};

}  // namespace

thread_local LoopWatch* LoopWatch::of_thread_ = nullptr;

void LoopWatch::Begin(int loop_fd) {
  if (of_thread_ != nullptr || loop_fd < 0) return;
  of_thread_ = new LoopWatch(loop_fd);
  Watcher::OfProcess().Add(of_thread_);
}

void LoopWatch::End() {
  if (of_thread_ == nullptr) return;
  Watcher::OfProcess().Remove(of_thread_);
  delete of_thread_;
  of_thread_ = nullptr;
}

void LoopWatch::Enter(RunPage* page) {
  const std::lock_guard lock(mutex_);
  page_ = page;
  if (page == nullptr || !pending_) return;
  pending_ = false;
  page->NudgeNext();
}

void LoopWatch::Nudge() {
  const std::lock_guard lock(mutex_);
  if (page_ != nullptr)
    page_->NudgeNext();
  else
    pending_ = true;
}

}  // namespace node_kvm
