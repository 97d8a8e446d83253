// What a thread is at, for those who would wait for it (userfaults.h), and whom others wait for. No N-API here.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>

namespace node_kvm {

// Lives as long as the thread: others look through ServingThread.
class ThreadPlace {
 public:
  enum Kind : uint64_t { kElsewhere, kInRun, kInBarrier };
  static ThreadPlace& OfThisThread();
  // Written by the thread itself: a number that is another each time; its two low bits are the kind.
  uint64_t value() const { return value_; }
  static Kind KindOf(uint64_t value) { return static_cast<Kind>(value & 3); }
  void Enter(Kind kind) { value_.store((((value_.load(std::memory_order_relaxed) >> 2) + 1) << 2) | kind, std::memory_order_relaxed); }
  // How many pages that the thread serves were taken from those who waited, since it last came to serve (userfaults.h).
  int taken() const { return taken_; }
  void AddTaken(int count) { taken_ += count; }

 private:
  std::atomic<uint64_t> value_{0};
  std::atomic<int> taken_{0};
};

// Around a call that waits in the kernel until each vCPU has left KVM_RUN, or will: a change of the memslots or of the buses
// (synchronize_srcu); and around the wait for the lock under which another thread makes such a call.
class VcpuBarrier {
 public:
  VcpuBarrier() : before_(ThreadPlace::KindOf(ThreadPlace::OfThisThread().value())) {
    ThreadPlace::OfThisThread().Enter(ThreadPlace::kInBarrier);
  }
  ~VcpuBarrier() { ThreadPlace::OfThisThread().Enter(before_); }
  VcpuBarrier(const VcpuBarrier&) = delete;
  VcpuBarrier& operator=(const VcpuBarrier&) = delete;

 private:
  const ThreadPlace::Kind before_;
};

// A thread that serves pages, as others see it: they may outlive it. What it is at lies in its thread-local memory, which goes with it;
// the thread takes its address back before.
class ServingThread {
 public:
  static std::shared_ptr<ServingThread> OfThisThread();
  // Of a thread that ended: kElsewhere, where it waits for nobody.
  uint64_t place();
  void AddTaken(int count);
  pid_t id() const { return id_; }

 private:
  friend class ServingThreadEnd;
  ServingThread();
  const pid_t id_;
  std::mutex mutex_;
  ThreadPlace* place_;
};

// The threads whose way out of KVM_RUN somebody waits for, whatever it costs the guest: their vCPU is being closed, or their Worker ended.
// One that waits for a page meanwhile does not get it (userfaults.h).
class LeavingThread {
 public:
  explicit LeavingThread(pid_t thread);
  ~LeavingThread();
  LeavingThread(const LeavingThread&) = delete;
  LeavingThread& operator=(const LeavingThread&) = delete;
  // Whether this thread is waited for since so long at least, so that the signal did not help.
  static bool IsLate(pid_t thread, std::chrono::milliseconds patience);

 private:
  const pid_t thread_;
  const std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
  LeavingThread* next_ = nullptr;
};

}  // namespace node_kvm
