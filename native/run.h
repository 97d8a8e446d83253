// KVM_RUN, its time limit and its kick. No N-API here, so that the stress programs drive the same code.
#pragma once

#include <linux/kvm.h>
#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "owned_fd.h"

namespace node_kvm {

// What a thread is at, for those who would wait for it (userfaults.h). Written by the thread itself, and lives as long.
class ThreadPlace {
 public:
  enum Kind : uint64_t { kElsewhere, kInRun, kInBarrier };
  static ThreadPlace& OfThisThread();
  // A number that is another each time; its two low bits are the kind.
  uint64_t value() const { return value_; }
  static Kind KindOf(uint64_t value) { return static_cast<Kind>(value & 3); }
  void Enter(Kind kind) { value_.store((((value_.load(std::memory_order_relaxed) >> 2) + 1) << 2) | kind, std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Around a call that waits in the kernel until each vCPU has left KVM_RUN, or will: a change of the memslots or of the buses
// (synchronize_srcu).
class VcpuBarrier {
 public:
  VcpuBarrier() { ThreadPlace::OfThisThread().Enter(ThreadPlace::kInBarrier); }
  ~VcpuBarrier() { ThreadPlace::OfThisThread().Enter(ThreadPlace::kElsewhere); }
};

// The shared page of a vCPU, and at most one thread in KVM_RUN.
//
// Why a kick cannot be lost. Kick() stores, in this order: kicked_, immediate_exit, then reads thread_ and signals that thread.
// Run() stores thread_, clears immediate_exit, then reads kicked_, then enters. All are sequentially consistent, so either
//   - Run() reads kicked_ true and does not enter; or
//   - kicked_ was stored after Run() read it, hence immediate_exit is set after it was cleared and thread_ is seen: KVM_RUN finds
//     immediate_exit (api.rst, "immediate_exit") or, being in the guest already, is interrupted by the signal.
// A signal of the time limit that arrives between the check and KVM_RUN is covered by its handler, which sets immediate_exit.
class RunPage {
 public:
  // What run() copies for its caller: the head of kvm_run with the exit's union, and the port data at a fixed place.
  static constexpr size_t kAreaSize = 8192;
  static constexpr size_t kDataOffset = 4096;

  // Takes over the vCPU's descriptor. Zero, or a negative errno.
  int Open(int vcpu_fd, size_t mmap_size);
  ~RunPage();

  int fd() const { return fd_.get(); }
  size_t size() const { return size_; }
  char* page() const { return reinterpret_cast<char*>(run_); }

  // The exit reason; -EINTR after a kick, -ETIME after `timeout_ms` (below 0: no limit), -EBUSY while another thread runs it.
  int Run(char* area, double timeout_ms);
  void Kick();
  bool running() const { return thread_ != 0; }

  // Makes a thread that is in KVM_RUN leave it and enter again. Harmless to any other thread.
  static void Interrupt(pid_t thread);
  // The same for a thread for which others wait, or which waits for itself (userfaults.h): its run ends with -EDEADLK.
  static void EndWaitForItself(pid_t thread);

 private:
  int Enter();
  void PutAnswer(const char* area);
  void TakeExit(char* area);

  OwnedFd fd_;
  kvm_run* run_ = nullptr;
  size_t size_ = 0;
  bool answer_expected_ = false;
  std::atomic<bool> kicked_{false};
  std::atomic<pid_t> thread_{0};
};

}  // namespace node_kvm
