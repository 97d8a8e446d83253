#include "core/eventfds.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>

namespace node_kvm {
namespace {

constexpr uint64_t kStop = UINT64_MAX;

int Watch(int epoll, int fd, uint64_t key) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = key;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

}  // namespace

int EventfdWatcher::Open(std::unique_ptr<EventfdWatcher>* watcher) {
  std::unique_ptr<EventfdWatcher> made(new EventfdWatcher());
  made->epoll_ = OwnedFd(epoll_create1(EPOLL_CLOEXEC));
  if (made->epoll_.get() < 0) return -errno;
  made->stop_ = OwnedFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (made->stop_.get() < 0) return -errno;
  made->listener_ = OwnedFd(made->bell_.Subscribe());
  if (made->listener_.get() < 0) return made->listener_.get();
  if (const int error = Watch(made->epoll_.get(), made->stop_.get(), kStop); error != 0) return error;
  made->thread_ = std::thread([raw = made.get()] { raw->Loop(); });
  pthread_setname_np(made->thread_.native_handle(), "kvm-eventfds");
  *watcher = std::move(made);
  return 0;
}

EventfdWatcher::~EventfdWatcher() {
  if (!thread_.joinable()) return;
  eventfd_write(stop_.get(), 1);
  thread_.join();
}

int EventfdWatcher::Add(uint32_t key, int eventfd) {
  OwnedFd own(fcntl(eventfd, F_DUPFD_CLOEXEC, 3));
  if (own.get() < 0) return -errno;
  const std::lock_guard lock(mutex_);
  OwnedFd& watched = watched_[key].fd;
  watched = std::move(own);
  const int error = Watch(epoll_.get(), watched.get(), key);
  if (error != 0) watched_.erase(key);
  return error;
}

void EventfdWatcher::Remove(uint32_t key) {
  const std::lock_guard lock(mutex_);
  const auto found = watched_.find(key);
  if (found == watched_.end()) return;
  // The watch is deleted explicitly: the caller's own descriptor keeps the file, and with it the watch, alive (epoll(7), question 6).
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second.fd.get(), nullptr);
  watched_.erase(found);
}

std::vector<EventfdWatcher::Count> EventfdWatcher::Take() {
  const std::lock_guard lock(mutex_);
  rung_ = false;
  std::vector<Count> counts;
  for (auto& [key, watched] : watched_) {
    if (watched.count == 0) continue;
    counts.push_back({key, watched.count});
    watched.count = 0;
  }
  return counts;
}

int EventfdWatcher::TakeListener() { return listener_.Release(); }

void EventfdWatcher::Loop() {
  for (;;) {
    std::array<epoll_event, 64> ready;
    const int count = epoll_wait(epoll_.get(), ready.data(), ready.size(), -1);
    for (int index = 0; index < count; ++index) {
      if (ready[index].data.u64 == kStop) return;
      Collect(static_cast<uint32_t>(ready[index].data.u64));
    }
  }
}

// Meanwhile the key may be gone, or belong to another eventfd. The descriptor is looked up afresh, so that there is nothing to read then.
void EventfdWatcher::Collect(uint32_t key) {
  const std::lock_guard lock(mutex_);
  const auto found = watched_.find(key);
  eventfd_t count = 0;
  if (found == watched_.end() || eventfd_read(found->second.fd.get(), &count) < 0) return;
  found->second.count += count;
  if (!std::exchange(rung_, true)) bell_.Ring();
}

}  // namespace node_kvm
