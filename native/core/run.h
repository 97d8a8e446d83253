// KVM_RUN, its time limit, and how other threads end it. This file uses no N-API, so that the stress programs drive the same code.
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

// Such a variable lies at a fixed distance from the thread's pointer: nothing is allocated when it is first touched, which a signal handler
// may do, and nothing is looked up on the way into and out of a guest.
#define STATIC_THREAD_LOCAL thread_local __attribute__((tls_model("initial-exec")))

// What a thread records of its runs, for the signal handler and for itself.
struct RunningThread {
  kvm_run* volatile entered = nullptr;
  volatile sig_atomic_t expired = 0;
  volatile sig_atomic_t waits_for_itself = 0;
  uint64_t run = 0;  // the number of its last run, among the runs of that vCPU
  ThreadPlace place;
  pid_t id = 0;  // set once the thread ran a vCPU
};
extern constinit STATIC_THREAD_LOCAL RunningThread running_thread;

// The shared page of a vCPU, with at most one thread in KVM_RUN.
//
// Why a request cannot be lost. Other threads ask by a bit that the guest be left: for a kick, a park, a nudge, the end of all runs. Ask()
// performs these steps, in this order: it stores the bit in requests_, stores immediate_exit, reads thread_, and signals that thread. Run()
// stores thread_, clears immediate_exit, stores entered_, then reads requests_, then enters. The stores of thread_, entered_ and requests_
// are locked instructions, which no load or store passes (Intel SDM volume 3, "Memory Ordering"). So either
//   - Run() reads the bit and does not enter; or
//   - the bit was stored after Run() read requests_. Hence immediate_exit is set after it was cleared, and thread_ is seen: KVM_RUN finds
//     immediate_exit (api.rst, "immediate_exit") or, if it is in the guest already, is interrupted by the signal.
// A bit that is set already needs no second signal: either its signal is on the way, or the bit is seen before the next entry. A signal of
// the time limit that arrives between the check and KVM_RUN is covered by its handler, which sets immediate_exit.
//
// Why an exit is told exactly once. An exit is what KVM_RUN leaves in the page when it returns 0 (or, for KVM_EXIT_MEMORY_FAULT, when it
// fails with EFAULT). Its reason is read in one place only: by Attempt(), right after that ioctl. The reason then is the result of the
// Run() that made the ioctl, and TakeExit() copies the page once for it. A run that did not enter the guest, or that entered and was
// interrupted, has a negative result, and nothing that it leaves in the area is an exit: the page may still hold an earlier exit, but
// nothing looks at it again, except for the answer that the guest waits for. Conversely, Run() returns each result of 0 or above as it is,
// and a caller that could not hand it on gives it back (TellAgain), so that none is lost. There is one exception: an internal error after
// EndWaitForItself(), which says that KVM could not fetch the instruction; the guest is where it was and meets the error again. What comes
// out of a guest that was ended is not told: its memslots go at once, and an access that had just lost its memslot would be told as an
// access to a device.
//
// Why a parked vCPU is out of the guest. AwaitParked() returns when it reads entered_ as 0. Run() stores entered_ before it reads
// requests_, so a Run() whose store comes after that read finds the bit kParked and does not enter.
class RunPage {
 public:
  // An area is what run() copies for its caller: the head of kvm_run with the exit's union, and the port data at a fixed place. The two lie
  // close together, because an exit may leave the TLB empty.
  static constexpr size_t kAreaSize = 512 + 4096;
  static constexpr size_t kDataOffset = 512;
  // Where the exit's union begins in kvm_run, and where it ends: before the sync regs.
  static constexpr size_t kUnion = offsetof(kvm_run, io);
  static constexpr size_t kHead = offsetof(kvm_run, kvm_valid_regs);
  // Copies only the part of an area that is in use: each further cache line costs time when an exit has left the lines cold.
  static void CopyArea(char* target, const char* source);

  // Takes over the vCPU's descriptor. Returns zero or a negative errno.
  int Open(int vcpu_fd, size_t mmap_size);
  ~RunPage();

  int fd() const { return fd_.get(); }
  size_t size() const { return size_; }
  char* page() const { return reinterpret_cast<char*>(run_); }

  // This result is not an errno. It says that an MMIO exit came where a page may be wanted: perhaps KVM itself made the access, and could
  // not wait for its page. Each run returns this again until its caller calls AccessMade().
  static constexpr int kMmioNotAwaited = -4096;

  // Returns the exit reason; -EINTR after a kick, -ECANCELED after CallBack(), -ERESTART after a nudge; -EDEADLK or kMmioNotAwaited after
  // EndWaitForItself(), or when the guest needs a page that this thread serves; -ETIME after `timeout_ms` (below 0: no limit), -EBUSY while
  // another thread runs the vCPU, -EBADF once it was ended. While the vCPU is parked, Run() waits.
  int Run(char* area, double timeout_ms);  // run_inline.h
  // Run() in two steps, for a thread that runs the vCPU again and again: between Acquire() and Release() no other thread runs it. Acquire()
  // returns false while another thread does.
  bool Acquire() { return Own(running_thread.id != 0 ? running_thread.id : BeginThread()); }
  int RunAcquired(char* area, double timeout_ms);  // run_inline.h
  void Release() {
    requests_ &= ~kCalledBack;
    Disown();
  }
  // Completes what the last exit left half done (an access, with its answer) and runs nothing else of the guest; called before the guest's
  // state is read or replaced. Returns zero when nothing is left to do, the exit reason when the access goes on, or what Run() returns.
  // Kicks and nudges are left to the next run. If an exit was told to nobody, it is told first.
  int Complete(char* area);
  // Gives back an exit that a run returned and that reached nobody: the next Run() returns it, unless there was another run since. `run` is
  // the value that running_thread.run had after that run.
  void TellAgain(int result, uint64_t run);
  // Called between Acquire() and Release(), after kMmioNotAwaited. Either the caller made the access, and the area has what it read; or, if
  // not `of_memory`, the access is handed on as one to a device.
  void AccessMade(bool of_memory);
  // A thread is in the vCPU. This is not an errno, since the kernel has uses of its own for EBUSY.
  static constexpr int kInRun = -4097;

  // Makes an ioctl of the vCPU other than KVM_RUN. Returns kInRun while the vCPU runs: the kernel has one lock for both, so the ioctl would
  // wait inside the kernel for any length of time.
  template <typename Call>
  int WhileIdle(Call call) {
    if (!Own(kInCall)) return kInRun;
    const Disowning disowning{this};
    return call(fd_.get());
  }

  // May be called from any thread. The run in progress, or else the next one, returns -EINTR.
  void Kick() { Ask(kKicked); }
  // The run in progress, or else the next one, returns -ECANCELED: the thread that drives the vCPU wants it out of the guest, for its own
  // reasons. Called only between Acquire() and Release(), so that no other thread's run answers it. A kick comes from somebody else, and
  // stays.
  void CallBack() { Ask(kCalledBack); }
  // The run in progress, or else the next one, returns -ERESTART: its thread has something to look after.
  void NudgeNext() { Ask(kNudged); }
  // Takes the vCPU out of the guest and keeps it out until Unpark(); then a run in progress goes on by itself. All vCPUs are asked first
  // and awaited after, so that they leave the guest at once. All are released before one is woken, because a woken thread might take the
  // processor. The VM's lock lets one thread park at a time.
  void Park() { Ask(kParked); }
  void AwaitParked();
  void Unpark() { requests_ &= ~kParked; }
  void WakeUnparked();
  // No run begins from now on, whichever environment asks for it.
  void End() { Ask(kEnded); }
  bool ended() const { return (requests_ & kEnded) != 0; }
  bool running() const { return thread_ > 0; }
  // The real-time signal that takes a thread out of the guest; it is below 0 when none was free.
  static int KickSignal();

  // Makes a thread that is in KVM_RUN leave it and enter again. This is harmless to any other thread.
  static void Interrupt(pid_t thread);
  // Does the same to a thread for which others wait, or which waits for itself (userfaults.h): its run ends with -EDEADLK. Anyone who may
  // signal the process can send the same signal, which only makes a run look for pages that wait.
  static void EndWaitForItself(pid_t thread);

 private:
  enum Request : uint32_t { kKicked = 1, kParked = 2, kNudged = 4, kEnded = 8, kCalledBack = 16 };
  struct Disowning {
    RunPage* page;
    ~Disowning() { page->Disown(); }
  };
  // The value of thread_ while a thread is in WhileIdle(), for moments; that thread is never in KVM_RUN.
  static constexpr pid_t kInCall = -1;
  // Returns false while a thread runs the vCPU.
  bool Own(pid_t as) {
    for (pid_t owner = 0; !thread_.compare_exchange_strong(owner, as); owner = 0) {
      if (owner != kInCall) return false;
      AwaitCall();
    }
    return true;
  }
  void AwaitCall();
  // A request that comes too late for the ending run is harmless, so this store need not be seen at once.
  void Disown() { thread_.store(0, std::memory_order_release); }
  void Ask(Request request);
  static pid_t BeginThread();
  int Enter();
  int EnterWithin(double timeout_ms);
  int Attempt();
  int CallRun();
  // Whether an access may have failed because it needed a page that this thread serves.
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
  // Whether the next MMIO exit may be the rest of an access that gave kMmioNotAwaited, on its second page.
  bool accesses_ = false;
  // What is left to do of the previous exit.
  enum class Due { kNothing, kAnswer, kExit } due_ = Due::kNothing;
  int untold_ = 0;
  uint64_t runs_ = 0;
  std::atomic<pid_t> thread_{0};
  std::atomic<uint32_t> requests_{0};
  std::atomic<uint32_t> entered_{0};
};

}  // namespace node_kvm
