// Demand paging with userfaultfd(2): a thread takes the faults on a range of memory, and answers them from a file, or hands them to
// whoever serves the pages. Threads in KVM_RUN wait in the kernel meanwhile. No N-API here.
//
// Why a fault that waits for the serving thread cannot hang the process:
//   - That thread may wait, in a change of the memslots, for the vCPU that waits for the page (run.h, VcpuBarrier). After a while the
//     waiting thread is interrupted, leaves KVM_RUN's read section, and faults again if it still must.
//   - It may run the vCPU that waits itself, or another: its run ends (RunPage::EndWaitForItself), so that it can serve.
//   - Some waits heed no signal: an access that KVM makes for an instruction which it emulates (fault_signal_pending() in
//     linux/sched/signal.h), and any before Linux 6.2. If signals did not help, the page is taken from those who wait: their access fails,
//     with EFAULT or as an MMIO exit, and a run on the serving thread is taken up again once the page is there. The page is given back
//     after a while, so that later accesses wait again, or when that thread comes to serve (Take).
//   - That thread may wait itself in a call that is no run, as KVM_TRANSLATE is: the page is taken in the same way.
//   - Whoever ends a vCPU waits for its thread (LeavingThread), and perhaps serves the page that it waits for, or holds up who does: the
//     page is taken in the same way.
//   - The library's own copies never fault: they ask for the pages first (MakePresent), and are refused instead of waiting.
#pragma once

#include <linux/userfaultfd.h>
#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/doorbell.h"
#include "core/owned_fd.h"
#include "core/run.h"

namespace node_kvm {

struct UserFaultsRequest {
  char* base = nullptr;
  size_t size = 0;
  // Faults on pages that the memfd holds but this mapping does not map yet, instead of on pages that are not there.
  bool minor = false;
  // Where the pages come from; none: from those who Take() the faults.
  OwnedFd source;
  off_t source_offset = 0;
  // The thread that will answer what Take() gives; null where there is a source, whose thread never waits.
  std::shared_ptr<ServingThread> server;
};

class UserFaults {
 public:
  struct Fault {
    uint64_t offset;
    bool write;
  };

  // Zero, or a negative errno: -EPERM where the process may not serve faults of the kernel.
  static int Open(UserFaultsRequest request, std::shared_ptr<UserFaults>* faults);
  // What is missing still becomes ordinary memory, and whoever waits goes on. Before the range is unmapped.
  ~UserFaults();
  UserFaults(const UserFaults&) = delete;
  UserFaults& operator=(const UserFaults&) = delete;

  bool minor() const { return request_.minor; }
  bool native() const { return request_.source.get() >= 0; }
  uint64_t served() const { return served_; }

  // A descriptor the caller owns, on which a byte comes when there is something to take.
  int Subscribe();
  // For the serving thread: faults that nobody took yet, each page once until it is served; but a page that this thread itself ran into
  // comes again. As it is out now, those from whom pages were taken for its sake may wait for them again.
  std::vector<Fault> Take();
  // Puts whole pages there (null: zeros; with `minor`, always what the memfd holds) and wakes who waits. A page that is there already
  // stays.
  int Serve(uint64_t offset, const char* content, size_t length);
  // No access to this page will succeed any more: EFAULT.
  int Fail(uint64_t offset);
  // From now on every fault fails: whoever served them is gone.
  void Abandon();

  // Before the library touches the memory itself. -EAGAIN where a page must be asked for elsewhere; never waits.
  int MakePresent(uint64_t offset, size_t length);
  // The pages of a range that are not there, as runs of neighbours.
  struct Run {
    uint64_t offset;
    size_t length;
  };
  std::vector<Run> Missing(uint64_t offset, size_t length);
  // Pages were taken away, and will be asked for again.
  void Forget(uint64_t offset, size_t length);

 private:
  struct Waiting {
    uint64_t offset;
    pid_t thread;
    std::chrono::steady_clock::time_point since;
    // Where the server was when this thread was last signalled for it.
    uint64_t nudged_for = 0;
  };
  struct Asked {
    bool write;
    bool taken;
  };

  explicit UserFaults(UserFaultsRequest request) : request_(std::move(request)), known_(request_.size / 4096) {}
  int Start();
  int Register();
  void Loop();
  void TakeMessages();
  void OnFault(const uffd_msg& message);
  void LookAfterWaiting();
  bool Nudge(Waiting* waiting, uint64_t place);
  bool IsServer(pid_t thread) const { return request_.server != nullptr && thread == request_.server->id(); }
  Waiting& WaitingOf(uint64_t offset, pid_t thread);
  static bool MovedOn(Waiting* waiting, uint64_t place);
  bool Evict(uint64_t offset);
  void ForgetTaken();
  void ReadmitAll();
  void ReadmitLate();
  void Readmit(uint64_t offset);
  void Admit(uint64_t offset, size_t length);
  int ServeFromSource(uint64_t offset);
  int Put(uint64_t offset, const char* content, size_t length);
  bool AreKnown(uint64_t offset, size_t length);
  void Look(uint64_t offset, const std::vector<unsigned char>& resident, std::vector<Run>* missing);
  void Answered(uint64_t offset, size_t length);

  UserFaultsRequest request_;
  OwnedFd uffd_;
  OwnedFd stop_;
  std::mutex mutex_;         // guards all below
  std::vector<bool> known_;  // pages that are known to be there
  std::map<uint64_t, Asked> asked_;
  std::vector<Waiting> waiting_;
  std::map<uint64_t, std::chrono::steady_clock::time_point> evicted_;  // since when
  int taken_ = 0;                                                      // in the server's ThreadPlace
  bool rung_ = false;
  Doorbell bell_;
  std::atomic<bool> abandoned_{false};
  std::atomic<uint64_t> served_{0};
  std::thread thread_;
};

}  // namespace node_kvm
