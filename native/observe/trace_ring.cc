#include "observe/trace_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstring>
#include <new>
#include <utility>

#include "core/linux_abi.h"
#include "core/map_budget.h"

namespace node_kvm {
namespace {

constexpr size_t kPage = 4096;
constexpr int kLatencyMilliseconds = 50;

// The head of a sample of the type below (perf_event_open(2), "PERF_RECORD_SAMPLE"); the raw data follow it.
struct SampleHead {
  perf_event_header header;
  uint32_t pid, tid;
  uint64_t time;
  uint32_t cpu, reserved;
  uint32_t raw_size;
} __attribute__((packed));
constexpr uint64_t kSampleType = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU | PERF_SAMPLE_RAW;

struct LostRecord {
  perf_event_header header;
  uint64_t id, lost;
};

int OpenPerf(perf_event_attr* attributes, int cpu, OwnedFd* fd) {
  attributes->size = sizeof *attributes;
  // This is the clock of process.hrtime(), so that the library's own calls and the kernel's events can be put in one order.
  attributes->use_clockid = 1;
  attributes->clockid = CLOCK_MONOTONIC;
  const int result = static_cast<int>(syscall(SYS_perf_event_open, attributes, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC));
  if (result < 0) return -errno;
  *fd = OwnedFd(result);
  return 0;
}

std::vector<int> OnlineCpus() {
  std::vector<int> cpus;
  FILE* file = fopen("/sys/devices/system/cpu/online", "re");
  if (file == nullptr) return {0};
  int first, last;
  while (fscanf(file, "%d", &first) == 1) {
    last = first;
    int next = fgetc(file);
    if (next == '-') {
      if (fscanf(file, "%d", &last) != 1) break;
      next = fgetc(file);
    }
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    if (next != ',') break;
  }
  fclose(file);
  return cpus;
}

}  // namespace

int TraceRing::Open(const TraceRequest& request, std::unique_ptr<TraceRing>* ring) {
  std::unique_ptr<TraceRing> made(new TraceRing(request));
  for (const auto& event : request.events)
    if (event.end_offset != 0) made->address_events_[static_cast<uint16_t>(event.id)] = event;
  made->stop_ = OwnedFd(eventfd(0, EFD_CLOEXEC));
  if (made->stop_.get() < 0) return -errno;
  const std::vector<int> cpus = OnlineCpus();
  if (const int error = TakeMappings(static_cast<long>(cpus.size())); error != 0) return error;
  for (const int cpu : cpus) {
    const int error = made->OpenCpu(cpu);
    // A CPU that went offline meanwhile has no events.
    if (error != 0 && error != -ENODEV) return error;
  }
  for (const auto& cpu : made->rings_)
    for (const auto& event : cpu->events) ioctl(event.get(), PERF_EVENT_IOC_ENABLE, 0);
  made->polled_.push_back({made->stop_.get(), POLLIN, 0});
  for (const auto& cpu : made->rings_) made->polled_.push_back({cpu->leader.get(), POLLIN, 0});
  made->reader_ = std::thread(&TraceRing::ReadLoop, made.get());
  pthread_setname_np(made->reader_.native_handle(), "kvm-trace");
  *ring = std::move(made);
  return 0;
}

TraceRing::~TraceRing() {
  if (reader_.joinable()) {
    const uint64_t one = 1;
    if (write(stop_.get(), &one, sizeof one) == sizeof one) reader_.join();
  }
  for (const auto& ring : rings_)
    if (ring->base != nullptr) munmap(ring->base, kPage + request_.ring_size);
}

int TraceRing::OpenCpu(int cpu) {
  auto ring = std::make_unique<CpuRing>();
  ring->cpu = cpu;
  // An event that counts nothing owns the ring: it stays when tracepoints come and go, and reports forks.
  perf_event_attr attributes{};
  attributes.type = PERF_TYPE_SOFTWARE;
  attributes.config = PERF_COUNT_SW_DUMMY;
  attributes.task = request_.children;
  attributes.watermark = 1;
  attributes.wakeup_watermark = static_cast<uint32_t>(request_.ring_size / 4);
  if (const int error = OpenPerf(&attributes, cpu, &ring->leader); error != 0) return error;
  void* base = mmap(nullptr, kPage + request_.ring_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->leader.get(), 0);
  if (base == MAP_FAILED) return errno == EPERM ? -ENOBUFS : -errno;
  ring->base = static_cast<char*>(base);
  rings_.push_back(std::move(ring));
  for (const auto& event : request_.events)
    if (const int error = OpenEvent(event, rings_.back().get()); error != 0) return error;
  return 0;
}

int TraceRing::OpenEvent(const TraceRequest::Event& event, CpuRing* ring) {
  perf_event_attr attributes{};
  attributes.type = PERF_TYPE_TRACEPOINT;
  attributes.config = event.id;
  attributes.sample_period = 1;
  attributes.sample_type = kSampleType;
  attributes.disabled = 1;
  attributes.read_format = counts_lost_ ? kPerfFormatLost : 0;
  OwnedFd fd;
  int error = OpenPerf(&attributes, ring->cpu, &fd);
  if (error == -EINVAL && counts_lost_) {
    counts_lost_ = false;
    attributes.read_format = 0;
    error = OpenPerf(&attributes, ring->cpu, &fd);
  }
  if (error != 0) return error;
  if (!event.filter.empty() && ioctl(fd.get(), PERF_EVENT_IOC_SET_FILTER, event.filter.c_str()) < 0) return -errno;
  if (ioctl(fd.get(), PERF_EVENT_IOC_SET_OUTPUT, ring->leader.get()) < 0) return -errno;
  ring->events.push_back(std::move(fd));
  return 0;
}

void TraceRing::ReadLoop() {
  // The runtime's signals are for its own threads.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  for (;;) {
    const int ready = poll(polled_.data(), polled_.size(), kLatencyMilliseconds);
    if (ready < 0 && errno != EINTR) return;
    if (polled_[0].revents != 0) return;
    const std::lock_guard lock(mutex_);
    const size_t before = held_;
    try {
      ReadRings();
    } catch (const std::bad_alloc&) {
      // This is thrown before anything was read: all records are in the rings still.
    }
    if (held_ > before) bell_.Ring();
  }
}

void TraceRing::ReadRings() {
  for (const auto& ring : rings_) ring->head = ring->Head();
  if (request_.children) LearnForks();
  for (const auto& ring : rings_) ReadRing(ring.get());
}

// A child's samples may lie in another CPU's ring than the record of its birth. The kernel wrote that record before the samples. So the
// births of all processes with a sample below the heads, which were taken before, are in the rings by now, perhaps beyond those heads.
void TraceRing::LearnForks() {
  std::vector<std::pair<pid_t, pid_t>> births;
  for (const auto& ring : rings_) {
    const uint64_t head = ring->Head();
    for (uint64_t at = ring->Page()->data_tail; at < head;) {
      const char* record = ring->base + kPage + (at & (request_.ring_size - 1));
      perf_event_header header;
      memcpy(&header, record, sizeof header);
      if (header.size < sizeof header) break;
      // Both ids lie within the eight bytes behind the header. Those may begin at the ring's start, but are never split at its end.
      const uint64_t ids = (at + sizeof header) & (request_.ring_size - 1);
      uint32_t pids[2];
      memcpy(pids, ring->base + kPage + ids, sizeof pids);
      if (header.type == PERF_RECORD_FORK) births.emplace_back(pids[1], pids[0]);
      at += header.size;
    }
  }
  // The births are ordered by ring, not by time: a grandchild may come before its parent.
  for (size_t known = 0; known != request_.processes.size();) {
    known = request_.processes.size();
    for (const auto& [parent, child] : births)
      if (request_.processes.count(parent) != 0) request_.processes.insert(child);
  }
}

// perf_event_open(2), "MMAP layout": the kernel moves data_head, and this code moves data_tail.
void TraceRing::ReadRing(CpuRing* ring) {
  auto* page = ring->Page();
  const char* data = ring->base + kPage;
  const size_t size = request_.ring_size;
  const uint64_t head = ring->head;
  uint64_t tail = page->data_tail;
  char folded[UINT16_MAX];
  while (tail < head) {
    const size_t at = tail & (size - 1);
    // Records are multiples of eight bytes, so a header is never split at the ring's end.
    perf_event_header header;
    memcpy(&header, data + at, sizeof header);
    if (header.size < sizeof header) break;
    const char* record = data + at;
    if (at + header.size > size) {
      const size_t first = size - at;
      memcpy(folded, data + at, first);
      memcpy(folded + first, data, header.size - first);
      record = folded;
    }
    try {
      Take(ring, header, record);
    } catch (const std::bad_alloc&) {
      ++beyond_limit_;
    }
    tail += header.size;
  }
  __atomic_store_n(&page->data_tail, tail, __ATOMIC_RELEASE);
}

void TraceRing::Take(CpuRing* ring, const perf_event_header& header, const char* record) {
  if (header.type == PERF_RECORD_LOST && header.size >= sizeof(LostRecord)) {
    LostRecord lost;
    memcpy(&lost, record, sizeof lost);
    lost_records_ += lost.lost;
  } else if (header.type == PERF_RECORD_SAMPLE && Wanted(record, header.size)) {
    if (held_ + header.size > request_.held_limit) {
      ++beyond_limit_;
      return;
    }
    ring->held.insert(ring->held.end(), record, record + header.size);
    held_ += header.size;
  }
}

bool TraceRing::Wanted(const char* record, size_t size) {
  if (size < sizeof(SampleHead) + sizeof(uint16_t)) return false;
  SampleHead head;
  memcpy(&head, record, sizeof head);
  uint16_t id;
  memcpy(&id, record + sizeof head, sizeof id);
  const auto pid = static_cast<pid_t>(head.pid);
  const bool ours = request_.processes.empty() || request_.processes.count(pid) != 0;
  const auto found = address_events_.find(id);
  if (found == address_events_.end()) return ours || at_our_memory_.count(head.tid) != 0;
  if (!ours && !IsKernelThread(pid)) return false;
  const bool meets = MeetsRanges(found->second, record, size);
  if (!ours) {
    if (meets)
      at_our_memory_.insert(head.tid);
    else
      at_our_memory_.erase(head.tid);
  }
  return meets;
}

bool TraceRing::MeetsRanges(const TraceRequest::Event& event, const char* record, size_t size) {
  if (all_ranges_) return true;
  constexpr size_t kHead = sizeof(SampleHead);
  if (kHead + event.start_offset + 8 > size || kHead + event.end_offset + 8 > size) return true;
  uint64_t start, end;
  memcpy(&start, record + kHead + event.start_offset, sizeof start);
  memcpy(&end, record + kHead + event.end_offset, sizeof end);
  // An event about one address gives it as both start and end.
  const uint64_t last = end > start ? end - 1 : start;
  for (const auto& range : ranges_)
    if (start < range.end && last >= range.start) return true;
  return false;
}

// ksmd, kcompactd and similar threads work on the memory of all processes. PF_KTHREAD is in the ninth field of /proc/PID/stat (proc(5)).
bool TraceRing::IsKernelThread(pid_t pid) {
  const auto [entry, fresh] = kernel_threads_.try_emplace(pid, false);
  if (!fresh) return entry->second;
  // /proc may be mounted from another PID namespace, where the same number is another process.
  char self[16] = "", path[32], text[512] = "";
  if (readlink("/proc/self", self, sizeof self - 1) < 0 || atoi(self) != getpid()) return entry->second;
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  const OwnedFd file(open(path, O_RDONLY | O_CLOEXEC));
  const ssize_t length = file.get() < 0 ? -1 : read(file.get(), text, sizeof text - 1);
  const char* after_name = length > 0 ? strrchr(text, ')') : nullptr;
  unsigned flags = 0;
  if (after_name != nullptr && sscanf(after_name + 2, "%*c %*d %*d %*d %*d %*d %u", &flags) == 1) entry->second = (flags & 0x200000) != 0;
  return entry->second;
}

void TraceRing::Drain(const std::function<void(const std::vector<char>&)>& take) {
  const std::lock_guard lock(mutex_);
  ReadRings();
  for (const auto& ring : rings_) take(ring->held);
  for (const auto& ring : rings_) std::vector<char>().swap(ring->held);
  held_ = 0;
}

uint64_t TraceRing::Lost() {
  const std::lock_guard lock(mutex_);
  uint64_t lost = beyond_limit_;
  if (!counts_lost_) return lost + lost_records_;
  for (const auto& ring : rings_)
    for (const auto& event : ring->events) {
      uint64_t values[2];  // the count, and PERF_FORMAT_LOST
      if (read(event.get(), values, sizeof values) == sizeof values) lost += values[1];
    }
  return lost;
}

void TraceRing::SetRanges(std::vector<AddressRange> ranges, bool all) {
  const std::lock_guard lock(mutex_);
  ReadRings();
  ranges_ = std::move(ranges);
  all_ranges_ = all;
}

int TraceRing::Subscribe() {
  const std::lock_guard lock(mutex_);
  const int listener = bell_.Subscribe();
  if (held_ > 0) bell_.Ring();
  return listener;
}

int OpenTracefs() {
#ifdef SYS_fsopen
  const OwnedFd context(static_cast<int>(syscall(SYS_fsopen, "tracefs", 1 /* FSOPEN_CLOEXEC */)));
  if (context.get() < 0) return -errno;
  if (syscall(SYS_fsconfig, context.get(), 6 /* FSCONFIG_CMD_CREATE */, nullptr, nullptr, 0) < 0) return -errno;
  const int mount = static_cast<int>(syscall(SYS_fsmount, context.get(), 1 /* FSMOUNT_CLOEXEC */, 0));
  return mount < 0 ? -errno : mount;
#else
  return -ENOSYS;
#endif
}

}  // namespace node_kvm
