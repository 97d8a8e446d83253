// Several threads signal eventfds while these are watched, forgotten and watched again: no count is lost or told twice.
#include "core/eventfds.h"

#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

using node_kvm::EventfdWatcher;
using node_kvm::OwnedFd;

namespace {

constexpr int kWriters = 3;
constexpr uint64_t kSignals = 20000;

}  // namespace

int main() {
  std::unique_ptr<EventfdWatcher> watcher;
  if (EventfdWatcher::Open(&watcher) != 0) return 1;
  const OwnedFd bell(watcher->TakeListener());
  std::vector<OwnedFd> eventfds;
  for (int writer = 0; writer < kWriters + 1; ++writer) eventfds.emplace_back(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  for (int writer = 0; writer < kWriters; ++writer)
    if (watcher->Add(static_cast<uint32_t>(writer), eventfds[writer].get()) != 0) return 1;
  std::vector<std::thread> threads;
  for (int writer = 0; writer < kWriters; ++writer)
    threads.emplace_back([fd = eventfds[writer].get()] {
      for (uint64_t signal = 0; signal < kSignals; ++signal) eventfd_write(fd, 1);
    });
  std::atomic<bool> done{false};
  // One eventfd comes and goes all the while, under a new key each time.
  std::thread changing([&] {
    for (uint32_t key = kWriters; !done; ++key) {
      eventfd_write(eventfds[kWriters].get(), 1);
      watcher->Add(key, eventfds[kWriters].get());
      watcher->Remove(key);
    }
  });
  uint64_t heard[kWriters] = {};
  const auto all = [&] {
    for (const uint64_t count : heard)
      if (count < kSignals) return false;
    return true;
  };
  while (!all())
    for (const auto& [key, count] : watcher->Take())
      if (key < kWriters) heard[key] += count;
  done = true;
  changing.join();
  for (auto& thread : threads) thread.join();
  for (const auto& [key, count] : watcher->Take())
    if (key < kWriters) heard[key] += count;
  int wrong = 0;
  for (const uint64_t count : heard) wrong += count != kSignals;
  printf("%d eventfds signalled %lu times each, %d miscounted\n", kWriters, static_cast<unsigned long>(kSignals), wrong);
  return wrong == 0 ? 0 : 1;
}
