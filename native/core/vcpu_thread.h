// A vCPU's own thread: it enters the guest when told, and hands over each exit. No N-API here, so that the stress programs drive the same
// code. What an exit means, and when to go on, is decided by whoever is notified.
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

// Ports or guest-physical addresses whose writes need no answer.
struct QueuedRange {
  bool port;
  uint64_t start, size;
};

// In the queue before its data, which are padded to eight bytes.
struct QueuedWrite {
  uint64_t address;
  uint32_t count;  // of a string write
  uint8_t size;    // of one
  uint8_t port;
  uint16_t padding;
  uint32_t length;  // of the data
  uint32_t more_padding;
};

class VcpuThread {
 public:
  // `notify` is called on the thread when there is something to take: an exit, or the first queued write.
  VcpuThread(std::shared_ptr<RunPage> page, int number, std::vector<QueuedRange> queued, std::function<void()> notify);
  // Ends the run in progress and waits for the thread: moments. An exit that nobody took comes again with the next run of the vCPU. A page
  // for which the guest waits meanwhile does not come any more.
  ~VcpuThread();
  VcpuThread(const VcpuThread&) = delete;
  VcpuThread& operator=(const VcpuThread&) = delete;

  // On into the guest, with the answer to the exit in `area`. False when it is on its way already.
  bool Go(const char* area);
  // Whether there is one to Take(); what was queued by then is older.
  bool HasResult() const { return stage_ == Stage::kResult; }
  // The run that Go() began ends with -ECANCELED, or does not even begin, unless it ends by itself before.
  void CallBack();
  // The result of the last Go(), and its exit into `area`; false while there is none that was not taken yet.
  bool Take(char* area, int* result);
  // What was queued, in order, and all of it older than the exit that Take() gives next.
  std::vector<char> TakeQueued();

 private:
  // Of the thread: told to go, in the guest, has a result, result taken.
  enum class Stage { kGo, kRunning, kResult, kIdle };
  void Loop();
  // Until there is something to do; the lock is held on return.
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
  // Written under mutex_; read without it by the thread that waits for it.
  std::atomic<Stage> stage_{Stage::kIdle};
  std::atomic<bool> ending_{false};
  // Whether CallBack() came before the run.
  bool called_back_ = false;
  std::atomic<pid_t> id_{0};
  // Of the thread alone: whether its last wait was short, so that the next is likely to be.
  bool answered_soon_ = true;
  int result_ = 0;
  uint64_t run_ = 0;
  std::vector<char> queue_;
  // The thread's alone between Go() and the result.
  alignas(8) char area_[RunPage::kAreaSize];
  std::thread thread_;
};

}  // namespace node_kvm
