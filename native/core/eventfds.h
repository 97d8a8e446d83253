// Waits for eventfds on a thread of its own, one for each environment, and adds up what they count: KVM signals an ioeventfd or a
// resample eventfd from within KVM_RUN, at any rate, while JavaScript is busy. No N-API here.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/doorbell.h"
#include "core/owned_fd.h"

namespace node_kvm {

class EventfdWatcher {
 public:
  struct Count {
    uint32_t key;
    uint64_t count;
  };

  // Zero, or a negative errno and nothing that stays open; EAGAIN for want of a thread.
  static int Open(std::unique_ptr<EventfdWatcher>* watcher);
  ~EventfdWatcher();
  EventfdWatcher(const EventfdWatcher&) = delete;
  EventfdWatcher& operator=(const EventfdWatcher&) = delete;

  // Watches a duplicate, so that the caller may close its own at any time. Zero, or a negative errno.
  int Add(uint32_t key, int eventfd);
  // After it no count of this key is told.
  void Remove(uint32_t key);
  // What was counted since the last call.
  std::vector<Count> Take();
  // Once: a descriptor the caller owns from then on, on which a byte comes when there is something to take.
  int TakeListener();

 private:
  struct Watched {
    OwnedFd fd;
    uint64_t count = 0;
  };
  EventfdWatcher() = default;
  void Loop();
  void Collect(uint32_t key);

  OwnedFd epoll_;
  OwnedFd stop_;
  OwnedFd listener_;
  std::mutex mutex_;  // guards all below
  std::map<uint32_t, Watched> watched_;
  bool rung_ = false;
  Doorbell bell_;
  std::thread thread_;
};

}  // namespace node_kvm
