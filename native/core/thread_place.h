// What a thread is doing, for the threads that would wait for it (userfaults.h), and which threads others wait for. This file uses no
// N-API.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>

namespace node_kvm {

// This lives as long as the thread. Other threads look at it through ServingThread.
class ThreadPlace {
 public:
  enum Kind : uint64_t { kElsewhere, kInRun, kInBarrier };
  static ThreadPlace& OfThisThread();
  // The thread itself writes this. The value is a new number each time; its two low bits are the kind.
  uint64_t value() const { return value_; }
  static Kind KindOf(uint64_t value) { return static_cast<Kind>(value & 3); }
  void Enter(Kind kind) { value_.store((((value_.load(std::memory_order_relaxed) >> 2) + 1) << 2) | kind, std::memory_order_relaxed); }
  // How many of the pages that the thread serves were taken from waiting threads since it last came to serve (userfaults.h).
  int taken() const { return taken_; }
  void AddTaken(int count) { taken_ += count; }

 private:
  std::atomic<uint64_t> value_{0};
  std::atomic<int> taken_{0};
};

// Surrounds a call that waits in the kernel until each vCPU has left KVM_RUN, or will have: a change of the memslots or of the buses
// (synchronize_srcu). It also surrounds the wait for the lock under which another thread makes such a call.
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

// A thread that serves pages, as other threads see it. They may outlive it, and its ThreadPlace lies in its thread-local memory, which goes
// with it; so the thread withdraws the address first.
class ServingThread {
 public:
  static std::shared_ptr<ServingThread> OfThisThread();
  // For a thread that ended this is kElsewhere, where it waits for nobody.
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

// The threads that must leave KVM_RUN, whatever it costs the guest, because another thread waits for that: their vCPU is being closed, or
// their Worker ended. If such a thread waits for a page, it does not get it (userfaults.h).
class LeavingThread {
 public:
  explicit LeavingThread(pid_t thread);
  ~LeavingThread();
  LeavingThread(const LeavingThread&) = delete;
  LeavingThread& operator=(const LeavingThread&) = delete;
  // Whether another thread has waited for this one for at least `patience`, so that the signal did not help.
  static bool IsLate(pid_t thread, std::chrono::milliseconds patience);

 private:
  const pid_t thread_;
  const std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
  LeavingThread* next_ = nullptr;
};

}  // namespace node_kvm
