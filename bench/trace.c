// The reference for vm.trace(): it reads the same rings in C, or the text of trace_pipe. It follows process PID until its standard input
// ends, then prints events, lost events, and the nanoseconds that it spent on them.
//   trace ring PID RINGSIZE EVENT[:FILTER]...     trace pipe PID EVENT...
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef PERF_FORMAT_LOST
#define PERF_FORMAT_LOST (1U << 4)
#endif

enum { kMostCpus = 256, kMostEvents = 16, kMostFields = 8 };

static void Die(const char* what) {
  perror(what);
  exit(1);
}

static uint64_t Now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

// The mount is visible to this process alone.
static char tracefs[] = "/tmp/node-kvm-bench-XXXXXX";
static void MountTracefs(void) {
  if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) Die("a mount namespace");
  if (mkdtemp(tracefs) == NULL || mount("tracefs", tracefs, "tracefs", 0, NULL) < 0) Die("mounting tracefs");
}
static void UnmountTracefs(void) {
  umount2(tracefs, MNT_DETACH);
  rmdir(tracefs);
}

static char* ReadText(const char* format, ...) __attribute__((format(printf, 1, 2)));
static char* ReadText(const char* format, ...) {
  static char text[16384];
  char path[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(path, sizeof path, format, arguments);
  va_end(arguments);
  const int fd = open(path, O_RDONLY);
  if (fd < 0) Die(path);
  const ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  text[length < 0 ? 0 : length] = 0;
  return text;
}

// The fields that TypeScript decodes: all numbers of an event.
struct Event {
  uint16_t id;
  int fields;
  struct {
    int offset, size;
  } field[kMostFields];
};
static struct Event events[kMostEvents];
static int event_count;

static void Parse(const char* name) {
  struct Event* event = &events[event_count++];
  event->id = atoi(ReadText("%s/events/%s/id", tracefs, name));
  for (const char* line = ReadText("%s/events/%s/format", tracefs, name); (line = strstr(line, "field:")) != NULL; ++line) {
    int offset, size;
    const char* at = strstr(line, "offset:");
    if (at == NULL || sscanf(at, "offset:%d;\tsize:%d;", &offset, &size) != 2) continue;
    if (offset < 8 || size > 8 || event->fields == kMostFields) continue;
    event->field[event->fields].offset = offset;
    event->field[event->fields++].size = size;
  }
}

static uint64_t sum;  // the sum of every field, so that the compiler cannot leave out reading them
static void Decode(const char* raw) {
  uint16_t id;
  memcpy(&id, raw, sizeof id);
  for (int index = 0; index < event_count; ++index) {
    const struct Event* event = &events[index];
    if (event->id != id) continue;
    for (int field = 0; field < event->fields; ++field) {
      uint64_t value = 0;
      memcpy(&value, raw + event->field[field].offset, event->field[field].size);
      sum += value;
    }
    return;
  }
}

struct Ring {
  struct perf_event_mmap_page* page;
  char* data;
};
static struct Ring rings[kMostCpus];
static int perf_fds[kMostCpus * kMostEvents];
static int perf_count;
static size_t ring_size;
static uint64_t seen, spent;

static int OpenPerf(struct perf_event_attr* attributes, int cpu) {
  attributes->size = sizeof *attributes;
  attributes->use_clockid = 1;
  attributes->clockid = CLOCK_MONOTONIC;
  const int fd = syscall(SYS_perf_event_open, attributes, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
  if (fd < 0) Die("perf_event_open");
  return fd;
}

static int OpenRing(int cpu, char** names, int count) {
  struct perf_event_attr leader = {
      .type = PERF_TYPE_SOFTWARE, .config = PERF_COUNT_SW_DUMMY, .watermark = 1, .wakeup_watermark = ring_size / 4};
  const int leader_fd = OpenPerf(&leader, cpu);
  char* base = mmap(NULL, 4096 + ring_size, PROT_READ | PROT_WRITE, MAP_SHARED, leader_fd, 0);
  if (base == MAP_FAILED) Die("mmap of a ring");
  rings[cpu] = (struct Ring){(void*)base, base + 4096};
  for (int index = 0; index < count; ++index) {
    struct perf_event_attr attributes = {
        .type = PERF_TYPE_TRACEPOINT, .config = events[index].id, .sample_period = 1, .read_format = PERF_FORMAT_LOST};
    attributes.sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU | PERF_SAMPLE_RAW;
    const int fd = OpenPerf(&attributes, cpu);
    const char* filter = strchr(names[index], ':');
    if (filter != NULL && ioctl(fd, PERF_EVENT_IOC_SET_FILTER, filter + 1) < 0) Die("a filter");
    if (ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, leader_fd) < 0) Die("PERF_EVENT_IOC_SET_OUTPUT");
    perf_fds[perf_count++] = fd;
  }
  return leader_fd;
}

static void ReadRing(struct Ring* ring, uint32_t pid) {
  const uint64_t head = __atomic_load_n(&ring->page->data_head, __ATOMIC_ACQUIRE);
  uint64_t tail = ring->page->data_tail;
  char folded[UINT16_MAX];
  while (tail < head) {
    const size_t at = tail & (ring_size - 1);
    struct perf_event_header header;
    memcpy(&header, ring->data + at, sizeof header);
    const char* record = ring->data + at;
    if (at + header.size > ring_size) {
      memcpy(folded, record, ring_size - at);
      memcpy(folded + ring_size - at, ring->data, header.size - (ring_size - at));
      record = folded;
    }
    uint32_t owner;
    memcpy(&owner, record + 8, sizeof owner);
    if (header.type == PERF_RECORD_SAMPLE && owner == pid) {
      Decode(record + 36);
      ++seen;
    }
    tail += header.size;
  }
  __atomic_store_n(&ring->page->data_tail, tail, __ATOMIC_RELEASE);
}

static void FollowRings(uint32_t pid, char** names, int count) {
  struct pollfd polled[kMostCpus + 1] = {{STDIN_FILENO, POLLIN, 0}};
  for (int index = 0; index < count; ++index) {
    char* name = strndup(names[index], strcspn(names[index], ":"));
    Parse(name);
    free(name);
  }
  const int cpus = sysconf(_SC_NPROCESSORS_ONLN);
  for (int cpu = 0; cpu < cpus; ++cpu) polled[cpu + 1] = (struct pollfd){OpenRing(cpu, names, count), POLLIN, 0};
  UnmountTracefs();
  puts("ready");
  fflush(stdout);
  for (int last = 0; !last;) {
    poll(polled, cpus + 1, 50);
    last = polled[0].revents != 0;
    const uint64_t start = Now();
    for (int cpu = 0; cpu < cpus; ++cpu) ReadRing(&rings[cpu], pid);
    spent += Now() - start;
  }
  uint64_t lost = 0;
  for (int index = 0; index < perf_count; ++index) {
    uint64_t values[2];
    if (read(perf_fds[index], values, sizeof values) == sizeof values) lost += values[1];
  }
  printf("%lu %lu %lu\n", seen, lost, spent);
  fprintf(stderr, sum == 1 ? " " : "");
}

static void WriteText(const char* text, const char* format, const char* name) {
  char path[512];
  snprintf(path, sizeof path, format, tracefs, name);
  const int fd = open(path, O_WRONLY);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) Die(path);
  close(fd);
}

static void FollowPipe(const char* pid, char** names, int count) {
  char path[512];
  snprintf(path, sizeof path, "%s/instances/node-kvm-bench", tracefs);
  if (mkdir(path, 0700) < 0) Die("an instance of tracefs");
  WriteText(pid, "%s/instances/node-kvm-bench/set_event_pid%s", "");
  for (int index = 0; index < count; ++index) {
    names[index][strcspn(names[index], ":")] = 0;
    WriteText("1", "%s/instances/node-kvm-bench/events/%s/enable", names[index]);
  }
  snprintf(path, sizeof path, "%s/instances/node-kvm-bench/trace_pipe", tracefs);
  const int fd = open(path, O_RDONLY | O_NONBLOCK);
  if (fd < 0) Die(path);
  puts("ready");
  fflush(stdout);
  static char text[1 << 16];
  uint64_t lost = 0;
  struct pollfd polled[] = {{STDIN_FILENO, POLLIN, 0}, {fd, POLLIN, 0}};
  for (int last = 0; !last;) {
    poll(polled, 2, 50);
    last = polled[0].revents != 0;
    const uint64_t start = Now();
    for (ssize_t length; (length = read(fd, text, sizeof text - 1)) > 0;) {
      text[length] = 0;
      for (const char* at = text; (at = strchr(at, '\n')) != NULL; ++at) ++seen;
      for (const char* at = text; (at = strstr(at, "[LOST ")) != NULL; ++at) lost += strtoul(at + 6, NULL, 10);
    }
    spent += Now() - start;
  }
  close(fd);
  snprintf(path, sizeof path, "%s/instances/node-kvm-bench", tracefs);
  if (rmdir(path) < 0) Die("removing the instance of tracefs");
  printf("%lu %lu %lu\n", seen, lost, spent);
  UnmountTracefs();
}

int main(int count, char** words) {
  if (count < 4) return 2;
  MountTracefs();
  if (strcmp(words[1], "pipe") == 0)
    FollowPipe(words[2], words + 3, count - 3);
  else {
    ring_size = strtoul(words[3], NULL, 10);
    FollowRings(strtoul(words[2], NULL, 10), words + 4, count - 4);
  }
  return 0;
}
