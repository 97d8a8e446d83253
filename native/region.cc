#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <vector>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

namespace node_kvm {
namespace {

constexpr size_t kHugePage = 2 << 20;

int LogTwo(size_t value) { return 63 - __builtin_clzll(value); }

// A memfd that cannot shrink: truncation would turn an access through a live view into SIGBUS (memfd_create(2), fcntl(2) F_ADD_SEALS).
int CreateMemfd(size_t size, OwnedFd* memfd) {
  OwnedFd fd(memfd_create("node-kvm", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd.get() < 0 || ftruncate(fd.get(), static_cast<off_t>(size)) < 0 || fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK) < 0) return -errno;
  *memfd = std::move(fd);
  return 0;
}

// An address at which transparent huge pages can form. Kernels from 6.7 align by themselves.
void* AlignedReservation(size_t size) {
  void* whole = mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (whole == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uintptr_t>(whole);
  const auto aligned = (start + kHugePage - 1) & ~(kHugePage - 1);
  if (aligned > start) munmap(whole, aligned - start);
  if (start + kHugePage > aligned) munmap(reinterpret_cast<void*>(aligned + size), start + kHugePage - aligned);
  return reinterpret_cast<void*>(aligned);
}

// process_vm_readv(2) on ourselves: EFAULT where a memcpy would raise a signal.
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

}  // namespace

int Region::Map(const RegionRequest& request, std::shared_ptr<Region>* region) {
  std::shared_ptr<Region> made(new Region(request));
  if (request.kind == RegionKind::kFile) {
    made->fd_ = OwnedFd(fcntl(request.fd, F_DUPFD_CLOEXEC, 3));
    if (made->fd_.get() < 0) return -errno;
  }
  made->plain_ = request.kind == RegionKind::kAnonymous || request.kind == RegionKind::kMemfd;
  const int error = made->MapWhole();
  if (error == 0) *region = std::move(made);
  return error;
}

Region::~Region() {
  if (base_ != nullptr) munmap(base_, size());
}

int Region::MapWhole() {
  void* wanted = reinterpret_cast<void*>(request_.address);
  int flags = request_.fixed ? MAP_FIXED_NOREPLACE : 0;
  const bool align = request_.kind == RegionKind::kAnonymous && request_.address == 0 && size() >= kHugePage;
  if (align) {
    wanted = AlignedReservation(size());
    if (wanted == nullptr) return -errno;
    flags = MAP_FIXED;
  }
  if (request_.populate) flags |= MAP_POPULATE;
  void* mapped = nullptr;
  const int error = MapPages(wanted, size(), request_.offset, flags, &fd_, &mapped);
  if (error != 0) {
    if (align) munmap(wanted, size());
    return error;
  }
  base_ = static_cast<char*>(mapped);
  // Kernels before 4.17 take MAP_FIXED_NOREPLACE for a hint.
  return request_.fixed && mapped != wanted ? -EEXIST : 0;
}

int Region::MapPages(void* address, size_t length, off_t offset, int flags, OwnedFd* memfd, void** mapped) {
  const int protection = request_.readonly ? PROT_READ : PROT_READ | PROT_WRITE;
  switch (request_.kind) {
    case RegionKind::kAnonymous:
      flags |= MAP_PRIVATE | MAP_ANONYMOUS;
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

int Region::Read(size_t offset, void* target, size_t length) {
  if (!Contains(offset, length)) return -ERANGE;
  if (!plain_) return KernelCopy(target, base_ + offset, length, false);
  memcpy(target, base_ + offset, length);
  return 0;
}

int Region::Write(size_t offset, const void* source, size_t length) {
  if (!Contains(offset, length)) return -ERANGE;
  if (!plain_) return KernelCopy(const_cast<void*>(source), base_ + offset, length, true);
  memcpy(base_ + offset, source, length);
  return 0;
}

int Region::Fill(size_t offset, size_t length, uint8_t value) {
  if (!Contains(offset, length)) return -ERANGE;
  if (plain_) {
    memset(base_ + offset, value, length);
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
  char* place = base_ + offset;
  void* fresh = nullptr;
  if (request_.kind == RegionKind::kFile) {
    if (content != nullptr) return -EOPNOTSUPP;
    return MapPages(place, length, request_.offset + static_cast<off_t>(offset), MAP_FIXED, &fd_, &fresh);
  }
  OwnedFd memfd;
  if (const int error = MapPages(nullptr, length, 0, 0, &memfd, &fresh); error != 0) return error;
  if (content != nullptr) {
    if (const int error = KernelCopy(const_cast<void*>(content), static_cast<char*>(fresh), length, true); error != 0) {
      munmap(fresh, length);
      return error;
    }
  }
  if (mremap(fresh, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, place) == MAP_FAILED) {
    const int error = -errno;
    munmap(fresh, length);
    return error;
  }
  remapped_ = true;
  return 0;
}

int Region::Advise(size_t offset, size_t length, int advice) {
  if (!Contains(offset, length)) return -ERANGE;
  return madvise(base_ + offset, length, advice) < 0 ? -errno : 0;
}

int Region::PunchHole(size_t offset, size_t length) {
  if (!Contains(offset, length) || length == 0) return -ERANGE;
  const std::lock_guard lock(mutex_);
  const bool in_file = request_.kind == RegionKind::kFile && request_.shared;
  if (!in_file && (request_.kind != RegionKind::kMemfd || remapped_)) return -EOPNOTSUPP;
  const off_t at = (in_file ? request_.offset : 0) + static_cast<off_t>(offset);
  return fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, static_cast<off_t>(length)) < 0 ? -errno : 0;
}

int Region::Protect(size_t offset, size_t length, int protection) {
  if (!Contains(offset, length)) return -ERANGE;
  const std::lock_guard lock(mutex_);
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
