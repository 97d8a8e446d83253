#include "core/region.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "core/file_size_signal.h"
#include "core/linux_abi.h"
#include "core/map_budget.h"
#include "core/page_ranges.h"

namespace node_kvm {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHugePage = 2 << 20;

int LogTwo(size_t value) { return 63 - __builtin_clzll(value); }

// Creates a memfd that cannot shrink: truncation would turn an access through a live view into SIGBUS (memfd_create(2), fcntl(2)
// F_ADD_SEALS).
int CreateMemfd(size_t size, OwnedFd* memfd) {
  const NoFileSizeSignal no_signal;
  OwnedFd fd(memfd_create("node-kvm", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd.get() < 0 || ftruncate(fd.get(), static_cast<off_t>(size)) < 0 || fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK) < 0) return -errno;
  *memfd = std::move(fd);
  return 0;
}

// Reserves memory at an address where transparent huge pages can form. Kernels from 6.7 on align by themselves.
void* AlignedReservation(size_t size) {
  void* whole = mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (whole == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uintptr_t>(whole);
  const auto aligned = (start + kHugePage - 1) & ~(kHugePage - 1);
  if (aligned > start) munmap(whole, aligned - start);
  if (start + kHugePage > aligned) munmap(reinterpret_cast<void*>(aligned + size), start + kHugePage - aligned);
  return reinterpret_cast<void*>(aligned);
}

// Copies by process_vm_readv(2) or process_vm_writev(2) on this process: they return EFAULT where a memcpy would raise a signal.
int KernelCopy(void* local, char* remote, size_t length, bool write) {
  auto* here = static_cast<char*>(local);
  while (length > 0) {
    iovec ours{here, length};
    iovec theirs{remote, length};
    const ssize_t count =
        write ? process_vm_writev(getpid(), &ours, 1, &theirs, 1, 0) : process_vm_readv(getpid(), &ours, 1, &theirs, 1, 0);
    if (count < 0) return -errno;
    if (count == 0) return -EFAULT;
    here += count;
    remote += count;
    length -= static_cast<size_t>(count);
  }
  return 0;
}

// Copies the bytes of the memfd itself: this needs no page table, and so causes no minor fault.
int FileCopy(int fd, void* local, off_t offset, size_t length, bool write) {
  const NoFileSizeSignal no_signal;
  auto* here = static_cast<char*>(local);
  while (length > 0) {
    const ssize_t count = write ? pwrite(fd, here, length, offset) : pread(fd, here, length, offset);
    if (count < 0) return -errno;
    if (count == 0) return -EFAULT;
    here += count;
    offset += count;
    length -= static_cast<size_t>(count);
  }
  return 0;
}

// Brings into `fresh` as many pages as the range at `old` holds, each at its place (mincore(2)).
int PopulateResident(const char* old, char* fresh, size_t length) {
  constexpr size_t kMostPages = 1 << 16;
  const size_t pages = length / kPage;
  std::vector<unsigned char> resident(std::min(pages, kMostPages));
  for (size_t first = 0; first < pages; first += kMostPages) {
    const size_t count = std::min(kMostPages, pages - first);
    if (mincore(const_cast<char*>(old) + first * kPage, count * kPage, resident.data()) < 0) return -errno;
    for (size_t page = 0; page < count;) {
      size_t end = page;
      while (end < count && (resident[end] & 1) != 0) end++;
      if (end > page && madvise(fresh + (first + page) * kPage, (end - page) * kPage, kMadvPopulateWrite) < 0) return -errno;
      page = end + 1;
    }
  }
  return 0;
}

// Does the same by ranges where the kernel knows them: a mapping may be large and almost empty.
int PopulateLike(const char* old, char* fresh, size_t length) {
  PageRanges host("/proc/self");
  // This fails without free descriptors, for example.
  if (host.Open() != 0) return PopulateResident(old, fresh, length);
  const auto start = reinterpret_cast<uintptr_t>(old);
  std::vector<PageRange> ranges;
  host.Find(start, start + length, &ranges);
  for (const auto& [from, to, categories] : ranges) {
    char* place = fresh + (from - start);
    int error = 0;
    if (categories == 0)
      error = PopulateResident(old + (from - start), place, to - from);
    else if ((categories & kPagePresent) != 0 && madvise(place, to - from, kMadvPopulateWrite) < 0)
      error = -errno;
    if (error != 0) return error;
  }
  return 0;
}

// Whether pages read differently after this advice.
bool TakesAway(int advice) { return advice == MADV_DONTNEED || advice == MADV_REMOVE || advice == MADV_FREE; }

// Whether the kernel keeps this advice with the mapping, so that the range becomes a mapping of its own.
bool SplitsMappings(int advice) {
  constexpr int kKept[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE, MADV_NOHUGEPAGE};
  return std::find(std::begin(kKept), std::end(kKept), advice) != std::end(kKept);
}

// For memory whose pages are served: MADV_FREE would take pages away at a moment that nobody knows, and populating would wait for the
// server.
int Prepare(UserFaults* faults, size_t offset, size_t length, int advice) {
  if (advice == MADV_FREE) return -EINVAL;
  if (TakesAway(advice)) faults->Forget(offset, length);
  const bool populates = advice == kMadvPopulateRead || advice == kMadvPopulateWrite;
  return populates ? faults->MakePresent(offset, length) : 0;
}

}  // namespace

int Region::Map(const RegionRequest& request, std::shared_ptr<Region>* region) {
  if (const int error = TakeMappings(1); error != 0) return error;
  std::shared_ptr<Region> made(new Region(request));
  if (request.kind == RegionKind::kFile) {
    made->fd_ = OwnedFd(fcntl(request.fd, F_DUPFD_CLOEXEC, 3));
    if (made->fd_.get() < 0) return -errno;
  }
  made->plain_ = request.kind == RegionKind::kAnonymous || request.kind == RegionKind::kMemfd;
  const int error = made->MapWhole();
  if (error != 0) return error;
  made->writes_ = made->fd_.get() < 0 ? std::make_shared<WriteLogs>() : WriteLogs::OfFile(made->fd_.get());
  *region = std::move(made);
  return 0;
}

Region::~Region() {
  faults_.reset();
  if (base_ != nullptr) munmap(base_, size());
}

int Region::MapWhole() {
  void* wanted = reinterpret_cast<void*>(request_.address);
  int flags = request_.fixed ? kMapFixedNoreplace : 0;
  const bool align = request_.kind == RegionKind::kAnonymous && request_.address == 0 && size() >= kHugePage;
  if (align) {
    wanted = AlignedReservation(size());
    if (wanted == nullptr) return -errno;
    flags = MAP_FIXED;
  }
  void* mapped = nullptr;
  const int error = MapPages(wanted, size(), request_.offset, flags, &fd_, &mapped);
  if (error != 0) {
    if (align) munmap(wanted, size());
    return error;
  }
  base_ = static_cast<char*>(mapped);
  // Kernels before 4.17 treat MAP_FIXED_NOREPLACE as a hint.
  if (request_.fixed && mapped != wanted) return -EEXIST;
  if (request_.advice && madvise(base_, size(), *request_.advice) < 0) return -errno;
  return request_.populate ? Populate() : 0;
}

// MAP_POPULATE would populate before any advice is given. This does the same afterwards: it writes to private memory, so that the pages
// become its own, and reads shared memory.
int Region::Populate() {
  const bool shared = request_.kind == RegionKind::kMemfd || (request_.kind == RegionKind::kFile && request_.shared);
  const bool write = !request_.readonly && !shared;
  if (madvise(base_, size(), write ? kMadvPopulateWrite : kMadvPopulateRead) == 0) return 0;
  if (errno != EINVAL) return -errno;
  // Before Linux 5.14: reads a byte of each page and writes it back.
  for (size_t offset = 0; offset < size(); offset += kPage) {
    char byte;
    int error = KernelCopy(&byte, base_ + offset, 1, false);
    if (error == 0 && write) error = KernelCopy(&byte, base_ + offset, 1, true);
    if (error != 0) return error;
  }
  return 0;
}

int Region::MapPages(void* address, size_t length, off_t offset, int flags, OwnedFd* memfd, void** mapped) {
  const int protection = request_.readonly ? PROT_READ : PROT_READ | PROT_WRITE;
  switch (request_.kind) {
    case RegionKind::kAnonymous:
      flags |= MAP_PRIVATE | MAP_ANONYMOUS | (request_.no_reserve ? MAP_NORESERVE : 0);
      break;
    case RegionKind::kHugetlb:
      flags |= MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (LogTwo(request_.huge_page_size) << MAP_HUGE_SHIFT);
      break;
    case RegionKind::kMemfd:
      if (const int error = CreateMemfd(length, memfd); error != 0) return error;
      offset = 0;
      flags |= MAP_SHARED;
      break;
    case RegionKind::kFile:
      flags |= request_.shared ? MAP_SHARED : MAP_PRIVATE;
      break;
  }
  const bool from_descriptor = request_.kind == RegionKind::kMemfd || request_.kind == RegionKind::kFile;
  void* result = mmap(address, length, protection, flags, from_descriptor ? memfd->get() : -1, from_descriptor ? offset : 0);
  if (result == MAP_FAILED) return -errno;
  *mapped = result;
  return 0;
}

// For memory where a plain copy could fault. Pages served by userfaultfd are made present first, or the copy is refused: this thread may be
// the one that serves them.
int Region::Copy(void* local, size_t offset, size_t length, bool write) {
  if (const auto served = faults()) {
    if (served->minor()) return FileCopy(fd_.get(), local, static_cast<off_t>(offset), length, write);
    if (const int error = served->MakePresent(offset, length); error != 0) return error;
  }
  return KernelCopy(local, base_ + offset, length, write);
}

int Region::Read(size_t offset, void* target, size_t length) {
  if (!Contains(offset, length)) return -ERANGE;
  {
    const std::shared_lock lock(mutex_);
    // The target may be a live buffer of this very memory.
    if (plain_) return memmove(target, base_ + offset, length), 0;
  }
  return Copy(target, offset, length, false);
}

int Region::Write(size_t offset, const void* source, size_t length) {
  if (!Contains(offset, length)) return -ERANGE;
  bool copied;
  {
    const std::shared_lock lock(mutex_);
    copied = plain_;
    if (copied) memmove(base_ + offset, source, length);
  }
  const int error = copied ? 0 : Copy(const_cast<void*>(source), offset, length, true);
  // This is called after a failure too: part of the range may have been written.
  Wrote(offset, length);
  return error;
}

int Region::Fill(size_t offset, size_t length, uint8_t value) {
  if (!Contains(offset, length)) return -ERANGE;
  bool filled;
  {
    const std::shared_lock lock(mutex_);
    filled = plain_;
    if (filled) memset(base_ + offset, value, length);
  }
  if (filled) {
    Wrote(offset, length);
    return 0;
  }
  const std::vector<char> block(std::min(length, size_t{1} << 20), static_cast<char>(value));
  for (size_t done = 0; done < length;) {
    const size_t part = std::min(block.size(), length - done);
    if (const int error = Write(offset + done, block.data(), part); error != 0) return error;
    done += part;
  }
  return 0;
}

int Region::Remap(size_t offset, size_t length, const void* content) {
  if (!Contains(offset, length) || length == 0) return -ERANGE;
  const std::lock_guard lock(mutex_);
  // The new pages would not be registered with the userfaultfd.
  if (faults_ != nullptr) return -EBUSY;
  if (const int error = TakeMappings(3); error != 0) return error;
  char* place = base_ + offset;
  void* fresh = nullptr;
  if (request_.kind == RegionKind::kFile) {
    if (content != nullptr) return -EOPNOTSUPP;
    const int error = MapPages(place, length, request_.offset + static_cast<off_t>(offset), MAP_FIXED, &fd_, &fresh);
    if (error == 0) Wrote(offset, length);
    return error;
  }
  OwnedFd memfd;
  if (const int failed = MapPages(nullptr, length, 0, 0, &memfd, &fresh); failed != 0) return failed;
  // The content is copied before the old pages go: a freed frame is likely to be the very one that the next touch gets.
  const int error = content != nullptr ? KernelCopy(const_cast<void*>(content), static_cast<char*>(fresh), length, true)
                                       : PopulateLike(place, static_cast<char*>(fresh), length);
  if (error != 0) {
    munmap(fresh, length);
    return error;
  }
  if (mremap(fresh, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, place) == MAP_FAILED) {
    const int failed = -errno;
    munmap(fresh, length);
    return failed;
  }
  if (length < size())
    remapped_ = true;
  else if (request_.kind == RegionKind::kMemfd)
    fd_ = std::move(memfd), remapped_ = false;
  Wrote(offset, length);
  return 0;
}

int Region::Advise(size_t offset, size_t length, int advice) {
  if (!Contains(offset, length)) return -ERANGE;
  if (const auto served = faults()) {
    if (const int error = Prepare(served.get(), offset, length, advice); error != 0) return error;
  }
  if (SplitsMappings(advice))
    if (const int error = TakeMappings(2); error != 0) return error;
  if (madvise(base_ + offset, length, advice) < 0) return -errno;
  if (TakesAway(advice)) Wrote(offset, length);
  return 0;
}

int Region::ServeFaults(UserFaultsRequest request, std::shared_ptr<UserFaults>* faults) {
  const std::lock_guard lock(mutex_);
  if (request_.kind != RegionKind::kAnonymous && request_.kind != RegionKind::kMemfd) return -EOPNOTSUPP;
  // After a partial remap the memory consists of several files, and reads through one memfd would miss the others.
  if (request.minor && (request_.kind != RegionKind::kMemfd || remapped_)) return -EOPNOTSUPP;
  if (faults_ != nullptr) return -EEXIST;
  if (buffers_ > 0) return -EBUSY;
  request.base = base_;
  request.size = size();
  // This precedes the first possible fault: a plain copy would wait for a page that perhaps only its own thread can serve.
  const bool was_plain = plain_.exchange(false);
  try {
    const int error = UserFaults::Open(std::move(request), &faults_);
    if (error != 0) plain_ = was_plain;
    *faults = faults_;
    return error;
  } catch (...) {
    plain_ = was_plain;
    throw;
  }
}

void Region::EndFaults(const UserFaults* faults) {
  std::shared_ptr<UserFaults> ended;
  const std::lock_guard lock(mutex_);
  if (faults_.get() == faults) ended = std::move(faults_);
}

std::shared_ptr<UserFaults> Region::faults() {
  const std::lock_guard lock(mutex_);
  return faults_;
}

int Region::PunchHole(size_t offset, size_t length) {
  if (!Contains(offset, length) || length == 0) return -ERANGE;
  if (const auto served = faults()) served->Forget(offset, length);
  const std::lock_guard lock(mutex_);
  const bool in_file = request_.kind == RegionKind::kFile && request_.shared;
  if (!in_file && (request_.kind != RegionKind::kMemfd || remapped_)) return -EOPNOTSUPP;
  const off_t at = (in_file ? request_.offset : 0) + static_cast<off_t>(offset);
  if (fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, static_cast<off_t>(length)) < 0) return -errno;
  Wrote(offset, length);
  return 0;
}

int Region::Protect(size_t offset, size_t length, int protection) {
  if (!Contains(offset, length)) return -ERANGE;
  // From now on a page that failed can be asked for again.
  if (const auto served = faults()) served->Forget(offset, length);
  const std::lock_guard lock(mutex_);
  if (const int error = TakeMappings(2); error != 0) return error;
  const bool accessible = (protection & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE);
  if (!accessible && buffers_ > 0) return -EBUSY;
  if (!accessible) plain_ = false;
  return mprotect(base_ + offset, length, protection) < 0 ? -errno : 0;
}

int Region::HoldForBuffer() {
  const std::lock_guard lock(mutex_);
  if (!plain_) return -EFAULT;
  ++buffers_;
  return 0;
}

}  // namespace node_kvm
