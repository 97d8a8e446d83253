#include "core/userfaults.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>

#include "core/run.h"
#include "core/userfaultfd.h"

namespace node_kvm {
namespace {

constexpr size_t kPage = 4096;
constexpr std::chrono::milliseconds kPatience{50};
// One mincore(2) looks at this much; it takes a byte for each page.
constexpr size_t kMostLookedAt = size_t{1} << 30;

}  // namespace

int UserFaults::Open(UserFaultsRequest request, std::shared_ptr<UserFaults>* faults) {
  std::shared_ptr<UserFaults> made(new UserFaults(std::move(request)));
  const int error = made->Start();
  if (error == 0) *faults = std::move(made);
  return error;
}

int UserFaults::Start() {
  const int fd = OpenUserfaultfd();
  if (fd < 0) return fd;
  uffd_ = OwnedFd(fd);
  stop_ = OwnedFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (stop_.get() < 0) return -errno;
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_MISSING_SHMEM | (request_.minor ? UFFD_FEATURE_MINOR_SHMEM : 0);
  if (ioctl(uffd_.get(), UFFDIO_API, &api) < 0) return errno == EINVAL ? -EOPNOTSUPP : -errno;
  if (const int error = Register(); error != 0) return error;
  thread_ = std::thread([this] { Loop(); });
  pthread_setname_np(thread_.native_handle(), "kvm-userfaults");
  return 0;
}

int UserFaults::Register() {
  uffdio_register range{};
  range.range.start = reinterpret_cast<uintptr_t>(request_.base);
  range.range.len = request_.size;
  range.mode = request_.minor ? UFFDIO_REGISTER_MODE_MINOR : UFFDIO_REGISTER_MODE_MISSING;
  return ioctl(uffd_.get(), UFFDIO_REGISTER, &range) < 0 ? -errno : 0;
}

UserFaults::~UserFaults() {
  if (thread_.joinable()) {
    eventfd_write(stop_.get(), 1);
    thread_.join();
  }
  ReadmitAll();
  ForgetTaken();
  // Closing the descriptor unregisters the range and wakes all waiting threads (userfaultfd(2)).
}

int UserFaults::Subscribe() {
  const std::lock_guard lock(mutex_);
  const int listener = bell_.Subscribe();
  if (rung_) bell_.Ring();
  return listener;
}

std::vector<UserFaults::Fault> UserFaults::Take() {
  const std::lock_guard lock(mutex_);
  rung_ = false;
  ReadmitAll();
  ForgetTaken();
  for (const Waiting& waiting : waiting_) {
    const auto asked = asked_.find(waiting.offset);
    if (IsServer(waiting.thread) && asked != asked_.end()) asked->second.taken = false;
  }
  std::erase_if(waiting_, [this](const Waiting& waiting) { return IsServer(waiting.thread); });
  std::vector<Fault> faults;
  for (auto& [offset, asked] : asked_)
    if (!std::exchange(asked.taken, true)) faults.push_back({offset, asked.write});
  return faults;
}

void UserFaults::Loop() {
  for (;;) {
    int timeout = -1;
    {
      const std::lock_guard lock(mutex_);
      if (!waiting_.empty() || !evicted_.empty()) timeout = static_cast<int>(kPatience.count());
    }
    std::array<pollfd, 2> ready{{{uffd_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
    if (poll(ready.data(), ready.size(), timeout) < 0 && errno != EINTR) return;
    if (ready[1].revents != 0) return;
    TakeMessages();
    LookAfterWaiting();
  }
}

void UserFaults::TakeMessages() {
  std::array<uffd_msg, 16> messages;
  for (;;) {
    const ssize_t length = read(uffd_.get(), messages.data(), sizeof messages);
    if (length <= 0) return;
    for (size_t index = 0; index < static_cast<size_t>(length) / sizeof(uffd_msg); ++index)
      if (messages[index].event == UFFD_EVENT_PAGEFAULT) try {
          OnFault(messages[index]);
        } catch (const std::bad_alloc&) {
          // The waiting thread is woken and faults again, so that this fault is told once more.
          uffdio_range range{messages[index].arg.pagefault.address / kPage * kPage, kPage};
          usleep(1000);
          ioctl(uffd_.get(), UFFDIO_WAKE, &range);
        }
  }
}

void UserFaults::OnFault(const uffd_msg& message) {
  const uint64_t offset = (message.arg.pagefault.address - reinterpret_cast<uintptr_t>(request_.base)) / kPage * kPage;
  if (offset >= request_.size) return;
  if (native()) {
    ServeFromSource(offset);
    return;
  }
  const auto thread = static_cast<pid_t>(message.arg.pagefault.feat.ptid);
  bool waits_for_itself = false;
  {
    const std::lock_guard lock(mutex_);
    const bool write = (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0;
    const bool is_new = asked_.try_emplace(offset, Asked{write, false}).second;
    if (is_new && !std::exchange(rung_, true)) bell_.Ring();
    Waiting& waiting = WaitingOf(offset, thread);
    if (IsServer(thread)) waits_for_itself = MovedOn(&waiting, request_.server->place());
  }
  // This looks at the flag after the fault was listed, and Abandon() stores the flag before it reads the list: one of the two sees the
  // other.
  if (abandoned_)
    Fail(offset);
  else if (waits_for_itself)
    RunPage::EndWaitForItself(thread);
}

// After a signal interrupted a wait, its fault is told again; even where the kernel only repeats the wait, this happens at each turn.
UserFaults::Waiting& UserFaults::WaitingOf(uint64_t offset, pid_t thread) {
  const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const Waiting& waiting) { return waiting.offset == offset && waiting.thread == thread; });
  return found != waiting_.end() ? *found : waiting_.emplace_back(Waiting{offset, thread, std::chrono::steady_clock::now()});
}

// Whether the server moved on since this wait was last signalled for; if so, it is to be signalled now. There is one signal for each place,
// because real-time signals queue up.
bool UserFaults::MovedOn(Waiting* waiting, uint64_t place) {
  if (waiting->nudged_for == place) return false;
  waiting->since = std::chrono::steady_clock::now();
  waiting->nudged_for = place;
  return true;
}

void UserFaults::LookAfterWaiting() {
  const auto now = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex_);
  ReadmitLate();
  const uint64_t place = request_.server == nullptr ? 0 : request_.server->place();
  // The waits of the server itself stay listed, because Take() tells them to it again.
  std::erase_if(waiting_,
                [&](Waiting& waiting) { return now - waiting.since >= kPatience && Nudge(&waiting, place) && !IsServer(waiting.thread); });
}

// Acts on a wait that has lasted a while. Returns whether it ended the wait by force.
bool UserFaults::Nudge(Waiting* waiting, uint64_t place) {
  if (LeavingThread::IsLate(waiting->thread, kPatience)) return Evict(waiting->offset);
  const ThreadPlace::Kind kind = ThreadPlace::KindOf(place);
  // The server itself waits, in a call that touches the memory and that cannot end before some thread serves the page.
  if (kind == ThreadPlace::kElsewhere) return IsServer(waiting->thread) && waiting->nudged_for == place && Evict(waiting->offset);
  // The server is where it was when the signal was sent, so the signal did not help.
  if (!MovedOn(waiting, place)) return Evict(waiting->offset);
  if (kind == ThreadPlace::kInRun)
    RunPage::EndWaitForItself(request_.server->id());
  else
    RunPage::Interrupt(waiting->thread);
  return false;
}

// Takes all access from the page for a while: the threads that wait for it stop waiting. When an access fails on the server's own thread,
// the count tells that thread that this may be the reason.
bool UserFaults::Evict(uint64_t offset) {
  char* page = request_.base + offset;
  if (evicted_.try_emplace(offset, std::chrono::steady_clock::now()).second) {
    if (request_.server != nullptr) ++taken_, request_.server->AddTaken(1);
    if (mprotect(page, kPage, PROT_NONE) < 0) {
      evicted_.erase(offset);
      return false;
    }
  }
  uffdio_range range{reinterpret_cast<uintptr_t>(page), kPage};
  ioctl(uffd_.get(), UFFDIO_WAKE, &range);
  return true;
}

void UserFaults::Readmit(uint64_t offset) {
  if (evicted_.erase(offset) > 0) mprotect(request_.base + offset, kPage, PROT_READ | PROT_WRITE);
}

void UserFaults::ReadmitAll() {
  while (!evicted_.empty()) Readmit(evicted_.begin()->first);
}

// By now the threads that lost the page are out of their waits. A thread that comes later waits for the page again, so that the server is
// asked.
void UserFaults::ReadmitLate() {
  const auto late = std::chrono::steady_clock::now() - kPatience;
  for (auto page = evicted_.begin(); page != evicted_.end();) {
    const auto& [offset, since] = *page++;
    if (since <= late) Readmit(offset);
  }
}

// The server came out of its call, and looks at the faults it is asked to serve.
void UserFaults::ForgetTaken() {
  if (request_.server != nullptr) request_.server->AddTaken(-std::exchange(taken_, 0));
}

// Called before the page comes, so that the threads that are woken have access. From here on, no page is evicted for the sake of threads
// that waited until now.
void UserFaults::Admit(uint64_t offset, size_t length) {
  const std::lock_guard lock(mutex_);
  std::erase_if(waiting_, [&](const Waiting& waiting) { return waiting.offset - offset < length; });
  for (uint64_t page = offset; page < offset + length; page += kPage) Readmit(page);
}

int UserFaults::Serve(uint64_t offset, const char* content, size_t length) {
  if (length == 0 || length % kPage != 0 || offset % kPage != 0 || offset > request_.size || length > request_.size - offset)
    return -ERANGE;
  Admit(offset, length);
  for (size_t done = 0; done < length; done += kPage) {
    // This counts before the page is there, because a thread that waited for it may look at the count at once.
    ++served_;
    if (const int error = Put(offset + done, content == nullptr ? nullptr : content + done, kPage); error != 0) return --served_, error;
  }
  Answered(offset, length);
  return 0;
}

// Puts one page. EEXIST says that it is there already. ENOENT says that the range is no longer registered and is ordinary memory. In
// neither case is there a fault to wait for, but a waiter may have come just before, so wake it.
int UserFaults::Put(uint64_t offset, const char* content, size_t length) {
  const uint64_t address = reinterpret_cast<uintptr_t>(request_.base) + offset;
  for (;;) {
    int result;
    if (request_.minor) {
      uffdio_continue request{};
      request.range = {address, length};
      result = ioctl(uffd_.get(), UFFDIO_CONTINUE, &request);
    } else if (content != nullptr) {
      uffdio_copy request{};
      request.dst = address;
      request.src = reinterpret_cast<uintptr_t>(content);
      request.len = length;
      result = ioctl(uffd_.get(), UFFDIO_COPY, &request);
    } else {
      uffdio_zeropage request{};
      request.range = {address, length};
      result = ioctl(uffd_.get(), UFFDIO_ZEROPAGE, &request);
    }
    if (result == 0) return 0;
    if (errno == EAGAIN) continue;
    if (errno != EEXIST && errno != ENOENT) return -errno;
    uffdio_range range{address, length};
    ioctl(uffd_.get(), UFFDIO_WAKE, &range);
    return 0;
  }
}

void UserFaults::Answered(uint64_t offset, size_t length) {
  const std::lock_guard lock(mutex_);
  for (uint64_t page = offset; page < offset + length; page += kPage) {
    known_[page / kPage] = true;
    asked_.erase(page);
  }
  std::erase_if(waiting_, [&](const Waiting& waiting) { return waiting.offset - offset < length; });
}

int UserFaults::ServeFromSource(uint64_t offset) {
  alignas(kPage) std::array<char, kPage> page;
  size_t done = 0;
  while (done < kPage) {
    const ssize_t count =
        pread(request_.source.get(), page.data() + done, kPage - done, request_.source_offset + static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error = -errno;
      Fail(offset);
      return error;
    }
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  // Beyond the end of the file the memory is zero.
  memset(page.data() + done, 0, kPage - done);
  return Serve(offset, page.data(), kPage);
}

// UFFDIO_POISON exists only since Linux 6.6. A page without any access does the same on all kernels.
int UserFaults::Fail(uint64_t offset) {
  if (offset % kPage != 0 || offset >= request_.size) return -ERANGE;
  {
    const std::lock_guard lock(mutex_);
    Readmit(offset);
  }
  char* page = request_.base + offset;
  const int result = mprotect(page, kPage, PROT_NONE) < 0 ? -errno : 0;
  uffdio_range range{reinterpret_cast<uintptr_t>(page), kPage};
  ioctl(uffd_.get(), UFFDIO_WAKE, &range);
  Answered(offset, kPage);
  return result;
}

void UserFaults::Abandon() {
  std::vector<uint64_t> unanswered;
  {
    abandoned_ = true;
    const std::lock_guard lock(mutex_);
    ReadmitAll();
    ForgetTaken();
    request_.server.reset();
    for (const auto& [offset, asked] : asked_) unanswered.push_back(offset);
  }
  for (const uint64_t offset : unanswered) Fail(offset);
}

// A page that was swapped out looks missing here. When it is served again, the kernel says that it is there, and nothing changes.
std::vector<UserFaults::Run> UserFaults::Missing(uint64_t offset, size_t length) {
  std::vector<Run> missing;
  if (request_.minor || length == 0 || offset > request_.size || length > request_.size - offset) return missing;
  const uint64_t end = (offset + length + kPage - 1) / kPage * kPage;
  std::vector<unsigned char> resident;
  for (uint64_t from = offset / kPage * kPage; from < end;) {
    const size_t part = std::min<size_t>(end - from, kMostLookedAt);
    if (!AreKnown(from, part)) {
      resident.resize(part / kPage);
      // If mincore(2) fails, all pages are taken for missing; the attempt to serve them then says why.
      if (mincore(request_.base + from, part, resident.data()) < 0) resident.assign(part / kPage, 0);
      Look(from, resident, &missing);
    }
    from += part;
  }
  return missing;
}

bool UserFaults::AreKnown(uint64_t offset, size_t length) {
  const std::lock_guard lock(mutex_);
  for (size_t page = 0; page < length / kPage; ++page)
    if (!known_[offset / kPage + page]) return false;
  return true;
}

void UserFaults::Look(uint64_t offset, const std::vector<unsigned char>& resident, std::vector<Run>* missing) {
  const std::lock_guard lock(mutex_);
  for (const unsigned char page : resident) {
    if ((page & 1) != 0) known_[offset / kPage] = true;
    if (!known_[offset / kPage]) {
      if (missing->empty() || missing->back().offset + missing->back().length != offset) missing->push_back({offset, 0});
      missing->back().length += kPage;
    }
    offset += kPage;
  }
}

int UserFaults::MakePresent(uint64_t offset, size_t length) {
  for (const auto& [start, bytes] : Missing(offset, length)) {
    if (!native()) return abandoned_ ? -EFAULT : -EAGAIN;
    for (uint64_t page = start; page < start + bytes; page += kPage)
      if (const int error = ServeFromSource(page); error != 0) return error;
  }
  return 0;
}

void UserFaults::Forget(uint64_t offset, size_t length) {
  const std::lock_guard lock(mutex_);
  for (uint64_t page = offset / kPage * kPage; page < offset + length; page += kPage) known_[page / kPage] = false;
}

}  // namespace node_kvm
