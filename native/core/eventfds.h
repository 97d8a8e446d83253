// Each environment has one thread that waits for eventfds and adds up their counts: KVM signals an ioeventfd or a resample eventfd from
// within KVM_RUN, at any rate, while JavaScript is busy. This file uses no N-API.
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

  // Returns zero; or a negative errno, and leaves nothing open. EAGAIN says that no thread could be made.
  static int Open(std::unique_ptr<EventfdWatcher>* watcher);
  ~EventfdWatcher();
  EventfdWatcher(const EventfdWatcher&) = delete;
  EventfdWatcher& operator=(const EventfdWatcher&) = delete;

  // Watches a duplicate, so that the caller may close its own descriptor at any time. Returns zero or a negative errno.
  int Add(uint32_t key, int eventfd);
  // After this call, Take() returns no count of this key.
  void Remove(uint32_t key);
  // Returns the counts since the last call.
  std::vector<Count> Take();
  // Returns, once, a descriptor that the caller owns from then on. A byte arrives on it when Take() has counts to return.
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
  std::mutex mutex_;  // guards everything below
  std::map<uint32_t, Watched> watched_;
  bool rung_ = false;
  Doorbell bell_;
  std::thread thread_;
};

}  // namespace node_kvm
