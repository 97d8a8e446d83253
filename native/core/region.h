// Host memory that can stand behind a memslot. A region is reference-counted: handles, memslots and JavaScript buffers hold it, and when
// the last of them lets go, it is unmapped. This file uses no N-API, so that the stress programs drive the same code.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <shared_mutex>

#include "core/owned_fd.h"
#include "core/userfaults.h"
#include "core/write_log.h"

namespace node_kvm {

enum class RegionKind { kAnonymous, kMemfd, kHugetlb, kFile };

struct RegionRequest {
  RegionKind kind = RegionKind::kAnonymous;
  size_t size = 0;
  size_t huge_page_size = 0;
  uintptr_t address = 0;
  bool fixed = false;
  std::optional<int> advice;  // of madvise(2), for the whole region
  bool populate = false;
  bool no_reserve = false;  // kAnonymous
  int fd = -1;              // of kFile; it is duplicated
  off_t offset = 0;
  bool shared = false;
  bool readonly = false;
};

class Region {
 public:
  // Returns zero or a negative errno.
  static int Map(const RegionRequest& request, std::shared_ptr<Region>* region);
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  char* base() const { return base_; }
  size_t size() const { return request_.size; }
  RegionKind kind() const { return request_.kind; }
  bool Contains(uint64_t offset, uint64_t length) const { return length <= size() && offset <= size() - length; }

  // These return zero or a negative errno, and never fault: where a plain copy could fault, the kernel copies.
  int Read(size_t offset, void* target, size_t length);
  int Write(size_t offset, const void* source, size_t length);
  int Fill(size_t offset, size_t length, uint8_t value);

  // Puts other pages under the same addresses in one step: every reader sees the old pages or the new ones, never a gap. Where there was a
  // page, there is at once another one; where there was none, there is none.
  int Remap(size_t offset, size_t length, const void* content);
  int Advise(size_t offset, size_t length, int advice);
  // Calls fallocate(2) with FALLOC_FL_PUNCH_HOLE on the mapped file: a memfd that was never remapped, or a shared file.
  int PunchHole(size_t offset, size_t length);
  int Protect(size_t offset, size_t length, int protection);

  // The logs of the pages that Write, Fill, Remap and Advise change; and where in the memory this region begins. A memfd that was remapped
  // is still counted as the one that it was.
  const std::shared_ptr<WriteLogs>& writes() const { return writes_; }
  uint64_t memory_offset() const { return request_.kind == RegionKind::kFile ? static_cast<uint64_t>(request_.offset) : 0; }

  // From now on, pages that are not there yet come from elsewhere. A region allows this once. `request` comes without its range.
  int ServeFaults(UserFaultsRequest request, std::shared_ptr<UserFaults>* faults);
  void EndFaults(const UserFaults* faults);

  // A live view may be handed out only while no access through it can fault. As long as the view lives, Protect is refused.
  int HoldForBuffer();
  void ReleaseBuffer() { --buffers_; }
  int buffers() const { return buffers_; }

  std::atomic<int> slots{0};

 private:
  explicit Region(const RegionRequest& request) : request_(request) {}
  int MapPages(void* address, size_t length, off_t offset, int flags, OwnedFd* memfd, void** mapped);
  int MapWhole();
  int Populate();
  void Wrote(size_t offset, size_t length) { writes_->Wrote(memory_offset() + offset, length); }
  int Copy(void* local, size_t offset, size_t length, bool write);
  std::shared_ptr<UserFaults> faults();

  RegionRequest request_;
  OwnedFd fd_;
  char* base_ = nullptr;
  // Plain copies share this lock, since they must not run while another environment takes access away.
  std::shared_mutex mutex_;
  std::atomic<int> buffers_{0};
  // False where an access may raise SIGSEGV or SIGBUS: under another protection, in a file that others may truncate, in a pool of huge
  // pages that may run dry.
  std::atomic<bool> plain_{true};
  bool remapped_ = false;
  std::shared_ptr<WriteLogs> writes_;
  std::shared_ptr<UserFaults> faults_;
};

}  // namespace node_kvm
