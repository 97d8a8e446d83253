// Demand paging with userfaultfd(2): a thread takes the faults on a range of memory, and answers them from a file, or hands them to the
// thread that serves the pages. Meanwhile, threads in KVM_RUN wait in the kernel. This file uses no N-API.
//
// Why a fault that waits for the serving thread cannot hang the process:
//   - The serving thread may itself wait, in a change of the memslots, for the vCPU that waits for the page (run.h, VcpuBarrier). After a
//     while the waiting thread is interrupted, leaves KVM_RUN's read section, and faults again if it still must.
//   - The serving thread may run the waiting vCPU itself, or another one: its run ends (RunPage::EndWaitForItself), so that it can serve.
//   - Some waits heed no signal: an access that KVM makes for an instruction which it emulates (fault_signal_pending() in
//     linux/sched/signal.h), and any wait before Linux 6.2. If signals did not help, the page is taken from the waiting threads: their
//     access fails, with EFAULT or as an MMIO exit, and a run on the serving thread is taken up again once the page is there. The page is
//     given back after a while, so that later accesses wait again, or when the serving thread comes to serve (Take).
//   - The serving thread may itself wait for the page in a call that is no run, such as KVM_TRANSLATE: the page is taken in the same way.
//   - A thread that ends a vCPU waits for the vCPU's thread (LeavingThread). It may be the one that serves the page, or it may hold up the
//     serving thread: the page is taken in the same way.
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
  // Serves faults on pages that the memfd holds but this mapping does not map yet, instead of faults on pages that are not there.
  bool minor = false;
  // The file from which the pages come. If there is none, they come from the thread that calls Take().
  OwnedFd source;
  off_t source_offset = 0;
  // The thread that will answer the faults from Take(). It is null where there is a source, whose thread never waits.
  std::shared_ptr<ServingThread> server;
};

class UserFaults {
 public:
  struct Fault {
    uint64_t offset;
    bool write;
  };

  // Returns zero or a negative errno: -EPERM where the process may not serve faults that happen in the kernel.
  static int Open(UserFaultsRequest request, std::shared_ptr<UserFaults>* faults);
  // Pages that are still missing become ordinary memory, and waiting threads go on. To be destroyed before the range is unmapped.
  ~UserFaults();
  UserFaults(const UserFaults&) = delete;
  UserFaults& operator=(const UserFaults&) = delete;

  bool minor() const { return request_.minor; }
  bool native() const { return request_.source.get() >= 0; }
  uint64_t served() const { return served_; }

  // Returns a descriptor, owned by the caller, on which a byte comes when there is something to take.
  int Subscribe();
  // For the serving thread: returns the faults that were not taken yet. Each page comes once until it is served, but a page that this
  // thread itself ran into comes again. Since the thread is out of its call now, threads from which pages were taken for its sake may wait
  // for them again.
  std::vector<Fault> Take();
  // Puts whole pages there (zeros if `content` is null; with `minor`, always what the memfd holds) and wakes the waiting threads. A page
  // that is there already stays.
  int Serve(uint64_t offset, const char* content, size_t length);
  // From now on every access to this page fails with EFAULT.
  int Fail(uint64_t offset);
  // From now on every fault fails: the thread that served them is gone.
  void Abandon();

  // Called before the library touches the memory itself. Returns -EAGAIN where a page must be asked for elsewhere; it never waits.
  int MakePresent(uint64_t offset, size_t length);
  // Finds the pages of a range that are not there, as runs of neighbours.
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
  std::mutex mutex_;         // guards everything below
  std::vector<bool> known_;  // pages that are known to be there
  std::map<uint64_t, Asked> asked_;
  std::vector<Waiting> waiting_;
  std::map<uint64_t, std::chrono::steady_clock::time_point> evicted_;  // since when
  int taken_ = 0;                                                      // counted in the server's ThreadPlace
  bool rung_ = false;
  Doorbell bell_;
  std::atomic<bool> abandoned_{false};
  std::atomic<uint64_t> served_{0};
  std::thread thread_;
};

}  // namespace node_kvm
