// Tracepoints through perf_event_open(2): each CPU has a ring, and a thread empties the rings, so that a long KVM_RUN on the caller's
// thread loses nothing. This file uses no N-API.
#pragma once

#include <linux/perf_event.h>
#include <poll.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/doorbell.h"
#include "core/owned_fd.h"

namespace node_kvm {

struct TraceRequest {
  struct Event {
    uint64_t id;  // the tracepoint's number, from its `id` file
    // The offsets in the raw data at which the event gives its range [start, end) of host-virtual addresses. Such an event is kept from
    // kernel threads too (ksmd, kcompactd), and only where it meets the ranges. 0 marks an ordinary event: it is kept from the traced
    // processes, and from a kernel thread as long as the last range that this thread gave was kept.
    uint32_t start_offset = 0;
    uint32_t end_offset = 0;
    std::string filter;  // in the kernel's language (trace/events.rst, "Event filtering"); empty for no filter
  };
  std::vector<Event> events;
  std::set<pid_t> processes;  // empty: every process
  bool children = false;      // whether to trace the processes that they fork, too
  size_t ring_size = 0;       // bytes for each CPU, a power of two of pages
  size_t held_limit = 0;      // bytes held for the caller; samples beyond them are counted as lost
};

struct AddressRange {
  uint64_t start;
  uint64_t end;
};

class TraceRing {
 public:
  // Returns zero or a negative errno. ENOBUFS says that the rings are more memory than may be locked; perf itself reports this as EPERM, as
  // it does many other refusals.
  static int Open(const TraceRequest& request, std::unique_ptr<TraceRing>* ring);
  ~TraceRing();
  TraceRing(const TraceRing&) = delete;
  TraceRing& operator=(const TraceRing&) = delete;

  // The size of all rings.
  size_t bytes() const { return rings_.size() * request_.ring_size; }
  // Gives `take` everything up to now, once for each CPU: whole PERF_RECORD_SAMPLE records, oldest first. When `take` throws, nothing is
  // lost.
  void Drain(const std::function<void(const std::vector<char>&)>& take);
  // Counts the samples that found their ring full, and those beyond the held limit.
  uint64_t Lost();
  // Sets the ranges from now on; earlier events are judged by the earlier ranges. With `all`, every range counts.
  void SetRanges(std::vector<AddressRange> ranges, bool all);
  // Returns a descriptor that the caller owns, or -1; there is at most one at a time. A byte arrives on it when samples are held and none
  // were before.
  int Subscribe();

 private:
  struct CpuRing {
    int cpu;
    OwnedFd leader;
    std::vector<OwnedFd> events;
    char* base = nullptr;
    uint64_t head = 0;  // how far the ring is being read
    std::vector<char> held;

    uint64_t Head() const { return __atomic_load_n(&Page()->data_head, __ATOMIC_ACQUIRE); }
    perf_event_mmap_page* Page() const { return reinterpret_cast<perf_event_mmap_page*>(base); }
  };

  explicit TraceRing(const TraceRequest& request) : request_(request) {}
  int OpenCpu(int cpu);
  int OpenEvent(const TraceRequest::Event& event, CpuRing* ring);
  void ReadLoop();
  void ReadRings();
  void LearnForks();
  void ReadRing(CpuRing* ring);
  void Take(CpuRing* ring, const perf_event_header& header, const char* record);
  bool Wanted(const char* record, size_t size);
  bool MeetsRanges(const TraceRequest::Event& event, const char* record, size_t size);
  bool IsKernelThread(pid_t pid);

  TraceRequest request_;
  std::unordered_map<uint16_t, TraceRequest::Event> address_events_;
  std::vector<std::unique_ptr<CpuRing>> rings_;
  std::mutex mutex_;  // guards everything below, and the rings' tails
  std::vector<AddressRange> ranges_;
  bool all_ranges_ = true;
  std::unordered_map<pid_t, bool> kernel_threads_;
  std::set<uint32_t> at_our_memory_;  // kernel threads whose last range met ours
  size_t held_ = 0;
  uint64_t beyond_limit_ = 0;
  uint64_t lost_records_ = 0;
  bool counts_lost_ = true;  // whether there is PERF_FORMAT_LOST, from Linux 6.0 on
  Doorbell bell_;
  OwnedFd stop_;
  // The reading thread uses this. It is made before the thread, because a thread could not report that memory has run out.
  std::vector<pollfd> polled_;
  std::thread reader_;
};

// Opens a mount of tracefs that is in no mount namespace and goes with its descriptor (fsmount(2)). Returns a negative errno on failure.
int OpenTracefs();

}  // namespace node_kvm
