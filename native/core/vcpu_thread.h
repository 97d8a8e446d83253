// A vCPU's own thread: it enters the guest when told to, and hands over each exit. The listener that it notifies decides what an exit means
// and when to go on. This file uses no N-API, so that the stress programs drive the same code.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/run.h"

namespace node_kvm {

// A range of ports or of guest-physical addresses whose writes need no answer.
struct QueuedRange {
  bool port;
  uint64_t start, size;
};

// In the queue this precedes its data, which are padded to eight bytes.
struct QueuedWrite {
  uint64_t address;
  uint32_t count;  // how many writes, in a string write
  uint8_t size;    // of one write
  uint8_t port;
  uint16_t padding;
  uint32_t length;  // of the data
  uint32_t more_padding;
};

class VcpuThread {
 public:
  // The thread calls `notify` when there is something to take: an exit, or the first queued write.
  VcpuThread(std::shared_ptr<RunPage> page, int number, std::vector<QueuedRange> queued, std::function<void()> notify);
  // Ends the run in progress and waits for the thread, which takes moments. An exit that was not taken comes again with the next run of the
  // vCPU. If the guest waits for a page meanwhile, the page does not come any more.
  ~VcpuThread();
  VcpuThread(const VcpuThread&) = delete;
  VcpuThread& operator=(const VcpuThread&) = delete;

  // Enters the guest, with the answer to the exit in `area`. Returns false when the guest was told to go already.
  bool Go(const char* area);
  // Whether there is an exit to Take(). Every write that was queued by then is older than it.
  bool HasResult() const { return stage_ == Stage::kResult; }
  // The run that Go() began ends with -ECANCELED, or does not even begin, unless it ends by itself before.
  void CallBack();
  // Returns the result of the last Go() and copies its exit into `area`; returns false while there is none that was not taken yet.
  bool Take(char* area, int* result);
  // Returns the queued writes in order; all of them are older than the exit that Take() gives next.
  std::vector<char> TakeQueued();

 private:
  // The thread's stages: told to go, in the guest, has a result, result taken.
  enum class Stage { kGo, kRunning, kResult, kIdle };
  void Loop();
  // Waits until there is something to do; the lock is held on return.
  void AwaitGo(std::unique_lock<std::mutex>* lock);
  int RunAcquired(std::unique_lock<std::mutex>* lock);
  int RunQueueing();
  bool Queue();
  const QueuedRange* RangeOf(uint64_t address, bool port) const;

  const std::shared_ptr<RunPage> page_;
  const std::vector<QueuedRange> ranges_;
  const std::function<void()> notify_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Written under mutex_; the thread that waits for it reads it without the lock.
  std::atomic<Stage> stage_{Stage::kIdle};
  std::atomic<bool> ending_{false};
  // Whether CallBack() came before the run.
  bool called_back_ = false;
  std::atomic<pid_t> id_{0};
  // Only the thread uses this: whether its last wait was short, so that the next is likely to be short, too.
  bool answered_soon_ = true;
  int result_ = 0;
  uint64_t run_ = 0;
  std::vector<char> queue_;
  // Between Go() and the result, only the thread uses this.
  alignas(8) char area_[RunPage::kAreaSize];
  std::thread thread_;
};

}  // namespace node_kvm
