// Tracepoints through perf_event_open(2): a ring for each CPU, and a thread that empties them, so that a long KVM_RUN on the caller's
// thread loses nothing. No N-API here.
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
    uint64_t id;  // of the tracepoint, from its `id` file
    // Says [start, end) of host-virtual addresses at these offsets of the raw data: kept from kernel threads too (ksmd, kcompactd), and
    // only where it meets the ranges. 0: an ordinary event, kept from the traced processes, and from kernel threads as long as the last
    // range that the thread told was kept.
    uint32_t start_offset = 0;
    uint32_t end_offset = 0;
    std::string filter;  // in the kernel's language (trace/events.rst, "Event filtering"); empty for none
  };
  std::vector<Event> events;
  std::set<pid_t> processes;  // empty: every process
  bool children = false;      // and what they fork
  size_t ring_size = 0;       // bytes for each CPU, a power of two of pages
  size_t held_limit = 0;      // bytes held for the caller; what comes beyond is counted as lost
};

struct AddressRange {
  uint64_t start;
  uint64_t end;
};

class TraceRing {
 public:
  // Zero, or a negative errno. ENOBUFS: the rings are more memory than may be locked, for which perf itself says EPERM, as for much else.
  static int Open(const TraceRequest& request, std::unique_ptr<TraceRing>* ring);
  ~TraceRing();
  TraceRing(const TraceRing&) = delete;
  TraceRing& operator=(const TraceRing&) = delete;

  // Of the rings.
  size_t bytes() const { return rings_.size() * request_.ring_size; }
  // Everything up to now, for each CPU: whole PERF_RECORD_SAMPLE records, oldest first. When `take` throws, all is there still.
  void Drain(const std::function<void(const std::vector<char>&)>& take);
  // Samples that found their ring full, and those beyond the held limit.
  uint64_t Lost();
  // From now on; what happened before is judged by the ranges of before. None: every range counts.
  void SetRanges(std::vector<AddressRange> ranges, bool all);
  // One byte is written there when samples are held that were not before. -1, or a descriptor the caller owns; at most one at a time.
  int Subscribe();

 private:
  struct CpuRing {
    int cpu;
    OwnedFd leader;
    std::vector<OwnedFd> events;
    char* base = nullptr;
    uint64_t head = 0;  // as far as is being read
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
  std::mutex mutex_;  // guards all below, and the rings' tails
  std::vector<AddressRange> ranges_;
  bool all_ranges_ = true;
  std::unordered_map<pid_t, bool> kernel_threads_;
  std::set<uint32_t> at_our_memory_;  // kernel threads, by the last range that each told
  size_t held_ = 0;
  uint64_t beyond_limit_ = 0;
  uint64_t lost_records_ = 0;
  bool counts_lost_ = true;  // PERF_FORMAT_LOST: Linux 6.0
  Doorbell bell_;
  OwnedFd stop_;
  // Of the reader, made before it: where memory has run out, nobody would hear of it from a thread.
  std::vector<pollfd> polled_;
  std::thread reader_;
};

// A mount of tracefs that is in no mount namespace and goes with its descriptor (fsmount(2)). A negative errno on failure.
int OpenTracefs();

}  // namespace node_kvm
