// KVM_RUN, its time limit, and how other threads end it. No N-API here, so that the stress programs drive the same code.
#pragma once

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/kvm_abi.h"
#include "core/owned_fd.h"
#include "core/thread_place.h"

namespace node_kvm {

// At a fixed distance from the thread's pointer: nothing is allocated when it is first touched, as by a signal handler, and nothing is
// looked up on the way into and out of a guest.
#define STATIC_THREAD_LOCAL thread_local __attribute__((tls_model("initial-exec")))

// What a thread keeps of its runs, for the signal's handler and for itself.
struct RunningThread {
  kvm_run* volatile entered = nullptr;
  volatile sig_atomic_t expired = 0;
  volatile sig_atomic_t waits_for_itself = 0;
  uint64_t run = 0;  // the number of its last, among those of that vCPU
  ThreadPlace place;
  pid_t id = 0;  // once it ran a vCPU
};
extern constinit STATIC_THREAD_LOCAL RunningThread running_thread;

// The shared page of a vCPU, and at most one thread in KVM_RUN.
//
// Why a request cannot be lost. Others ask for the guest's end by a bit: a kick, a park, a nudge, the end of all. Ask() stores, in this
// order: the bit in requests_, immediate_exit, then reads thread_ and signals that thread. Run() stores thread_, clears immediate_exit,
// stores entered_, then reads requests_, then enters. The stores of thread_, entered_ and requests_ are locked instructions, which no load
// or store passes (Intel SDM volume 3, "Memory Ordering"), so either
//   - Run() reads the bit and does not enter; or
//   - the bit was stored after Run() read requests_, hence immediate_exit is set after it was cleared and thread_ is seen: KVM_RUN finds
//     immediate_exit (api.rst, "immediate_exit") or, being in the guest already, is interrupted by the signal.
// A bit that is set already has its signal on the way, or is seen before the next entry: it needs no second one.
// A signal of the time limit that arrives between the check and KVM_RUN is covered by its handler, which sets immediate_exit.
//
// Why an exit is told exactly once. An exit is what a KVM_RUN that returned 0 left in the page (or, for KVM_EXIT_MEMORY_FAULT, one that
// failed with EFAULT). Its reason is read in one place, Attempt(), right after that ioctl and nowhere else, and handed on as the result of
// the Run() that made it; TakeExit() copies the page once for it. A run that did not enter the guest, or that entered and was
// interrupted, has a negative result, and nothing that it leaves in the area is an exit: what the page still holds from an earlier one is
// never looked at again, except for the answer that the guest waits for. The other way round, each result of 0 or above is returned by
// Run() as it is, and who could not hand it on gives it back (TellAgain), so that none is lost; but for an internal error after
// EndWaitForItself(), which says that KVM could not fetch the instruction: the guest is where it was and meets it again. What comes out of
// a guest that was ended is not told: its memslots go at once, and an access that they had just been found to lack would be told as one of
// a device.
//
// Why a parked vCPU is out of the guest. AwaitParked() returns when it reads entered_ as 0. Run() stores entered_ before it reads
// requests_, so a Run() whose store comes after that read finds the bit kParked and does not enter.
class RunPage {
 public:
  // What run() copies for its caller: the head of kvm_run with the exit's union, and the port data at a fixed place.
  // Close together: an exit may leave the TLB empty.
  static constexpr size_t kAreaSize = 512 + 4096;
  static constexpr size_t kDataOffset = 512;
  // Where kvm_run has the exit's union, and where that ends: before the sync regs.
  static constexpr size_t kUnion = offsetof(kvm_run, io);
  static constexpr size_t kHead = offsetof(kvm_run, kvm_valid_regs);
  // What of an area is in use: every further cache line counts when an exit has left them cold.
  static void CopyArea(char* target, const char* source);

  // Takes over the vCPU's descriptor. Zero, or a negative errno.
  int Open(int vcpu_fd, size_t mmap_size);
  ~RunPage();

  int fd() const { return fd_.get(); }
  size_t size() const { return size_; }
  char* page() const { return reinterpret_cast<char*>(run_); }

  // No errno: an MMIO exit where a page may be wanted. Perhaps it is an access that KVM makes itself, and that could not wait for its page.
  // Each run returns it again, until whoever saw it says AccessMade().
  static constexpr int kMmioNotAwaited = -4096;

  // The exit reason; -EINTR after a kick, -ECANCELED after CallBack(), -ERESTART after a nudge, -EDEADLK or kMmioNotAwaited after
  // EndWaitForItself() or for want of a page that this thread serves, -ETIME after `timeout_ms` (below 0: no limit), -EBUSY while another
  // thread runs it, -EBADF once ended. While parked it waits.
  int Run(char* area, double timeout_ms);  // run_inline.h
  // Run() in two, for a thread that runs it again and again: between Acquire() and Release() no other thread does. Acquire() is false while
  // another thread runs it.
  bool Acquire() { return Own(running_thread.id != 0 ? running_thread.id : BeginThread()); }
  int RunAcquired(char* area, double timeout_ms);  // run_inline.h
  void Release() {
    requests_ &= ~kCalledBack;
    Disown();
  }
  // Does what the last exit left half done, an access with its answer, and nothing else of the guest: before its state is read or replaced.
  // Zero when nothing is left of it, the exit reason where it goes on, or what Run() returns; kicks and nudges are left to the next run. An
  // exit that nobody was told is told first.
  int Complete(char* area);
  // The exit that a run returned reached nobody: the next Run() returns it, unless there was another since. `run` is what
  // running_thread.run was after it.
  void TellAgain(int result, uint64_t run);
  // Between Acquire() and Release(), after kMmioNotAwaited: the access is made, and the area has what it read; or, if not `of_memory`, it
  // is handed on as a device's.
  void AccessMade(bool of_memory);
  // No errno, since the kernel has uses of its own for EBUSY: a thread is in the vCPU.
  static constexpr int kInRun = -4097;

  // An ioctl of the vCPU other than KVM_RUN: kInRun while it runs, instead of a wait of any length inside the kernel, which has one lock
  // for both.
  template <typename Call>
  int WhileIdle(Call call) {
    if (!Own(kInCall)) return kInRun;
    const Disowning disowning{this};
    return call(fd_.get());
  }

  // From any thread. The run in progress, or else the next one, returns -EINTR.
  void Kick() { Ask(kKicked); }
  // The run in progress, or else the next one, returns -ECANCELED: whoever drives the vCPU wants it out, for reasons of its own. Only
  // between Acquire() and Release(), so that no other thread's run answers it. A kick is somebody else's, and stays.
  void CallBack() { Ask(kCalledBack); }
  // The run in progress, or else the next one, returns -ERESTART: its thread has something to look after.
  void NudgeNext() { Ask(kNudged); }
  // Out of the guest, and not into it until Unpark(): a run in progress goes on by itself then. Asked of each first, awaited after, so that
  // several leave the guest at once; and released all before one is woken, who might take the processor. One parks at a time: the VM's
  // lock.
  void Park() { Ask(kParked); }
  void AwaitParked();
  void Unpark() { requests_ &= ~kParked; }
  void WakeUnparked();
  // No run from now on: for all who share the vCPU.
  void End() { Ask(kEnded); }
  bool ended() const { return (requests_ & kEnded) != 0; }
  bool running() const { return thread_ > 0; }
  // The real-time signal that takes a thread out of the guest; below 0 when none was free.
  static int KickSignal();

  // Makes a thread that is in KVM_RUN leave it and enter again. Harmless to any other thread.
  static void Interrupt(pid_t thread);
  // The same for a thread for which others wait, or which waits for itself (userfaults.h): its run ends with -EDEADLK. Anybody who may
  // signal the process can send the same: it makes a run look for pages that wait, and that is all.
  static void EndWaitForItself(pid_t thread);

 private:
  enum Request : uint32_t { kKicked = 1, kParked = 2, kNudged = 4, kEnded = 8, kCalledBack = 16 };
  struct Disowning {
    RunPage* page;
    ~Disowning() { page->Disown(); }
  };
  // In thread_: of a thread in WhileIdle(), for moments, never in KVM_RUN.
  static constexpr pid_t kInCall = -1;
  // False while a thread runs it.
  bool Own(pid_t as) {
    for (pid_t owner = 0; !thread_.compare_exchange_strong(owner, as); owner = 0) {
      if (owner != kInCall) return false;
      AwaitCall();
    }
    return true;
  }
  void AwaitCall();
  // What comes too late for the run at its end is harmless, so this need not be seen at once.
  void Disown() { thread_.store(0, std::memory_order_release); }
  void Ask(Request request);
  static pid_t BeginThread();
  int Enter();
  int EnterWithin(double timeout_ms);
  int Attempt();
  int CallRun();
  // Whether an access may have failed for want of a page that this thread serves.
  static bool LacksPage() { return running_thread.waits_for_itself || running_thread.place.taken() > 0; }
  int AttemptToComplete();
  void WaitForUnpark(uint32_t requests);
  int Answer(uint32_t requests);
  int Again(char* area);
  template <typename Part>
  void ForAnswer(Part part) const;
  bool HasData() const;
  void PutAnswer(const char* area);
  void TakeExit(char* area, int result);

  OwnedFd fd_;
  kvm_run* run_ = nullptr;
  size_t size_ = 0;
  // Whether the next MMIO exit may be the rest of an access of kMmioNotAwaited, on its second page.
  bool accesses_ = false;
  // What the exit before has left to do.
  enum class Due { kNothing, kAnswer, kExit } due_ = Due::kNothing;
  int untold_ = 0;
  uint64_t runs_ = 0;
  std::atomic<pid_t> thread_{0};
  std::atomic<uint32_t> requests_{0};
  std::atomic<uint32_t> entered_{0};
};

}  // namespace node_kvm
