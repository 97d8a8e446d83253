// Host memory that can stand behind a memslot. A region is reference-counted: handles, memslots and JavaScript buffers hold it,
// and only when the last of them lets go is it unmapped. No N-API here, so that the stress programs drive the same code.
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
  std::optional<int> advice;  // of madvise(2), for the whole
  bool populate = false;
  bool no_reserve = false;  // kAnonymous
  int fd = -1;              // kFile: duplicated
  off_t offset = 0;
  bool shared = false;
  bool readonly = false;
};

class Region {
 public:
  // Zero, or a negative errno.
  static int Map(const RegionRequest& request, std::shared_ptr<Region>* region);
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  char* base() const { return base_; }
  size_t size() const { return request_.size; }
  RegionKind kind() const { return request_.kind; }
  bool Contains(uint64_t offset, uint64_t length) const { return length <= size() && offset <= size() - length; }

  // All return zero or a negative errno, and never fault: where a plain copy could, the kernel copies.
  int Read(size_t offset, void* target, size_t length);
  int Write(size_t offset, const void* source, size_t length);
  int Fill(size_t offset, size_t length, uint8_t value);

  // Other pages under the same addresses, in one step: whoever looks sees the old pages or the new, never a gap. Where a page was there is
  // one at once, another; where none was, none.
  int Remap(size_t offset, size_t length, const void* content);
  int Advise(size_t offset, size_t length, int advice);
  // fallocate(2) with FALLOC_FL_PUNCH_HOLE on what is mapped: a memfd that was never remapped, or a shared file.
  int PunchHole(size_t offset, size_t length);
  int Protect(size_t offset, size_t length, int protection);

  // The pages that Write, Fill, Remap and Advise change, for who asks; and where in the memory this region begins. A memfd that was
  // remapped is counted as the one that it was.
  const std::shared_ptr<WriteLogs>& writes() const { return writes_; }
  uint64_t memory_offset() const { return request_.kind == RegionKind::kFile ? static_cast<uint64_t>(request_.offset) : 0; }

  // Pages that are not there yet come from elsewhere from now on; once for a region. `request` without its range.
  int ServeFaults(UserFaultsRequest request, std::shared_ptr<UserFaults>* faults);
  void EndFaults(const UserFaults* faults);

  // A live view may be handed out only while no access through it can fault; as long as it lives, Protect is refused.
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
  // Shared by plain copies, which must not run while another environment takes access away.
  std::shared_mutex mutex_;
  std::atomic<int> buffers_{0};
  // False where an access may raise SIGSEGV or SIGBUS: another protection, a file others may truncate, a huge page pool that may run dry.
  std::atomic<bool> plain_{true};
  bool remapped_ = false;
  std::shared_ptr<WriteLogs> writes_;
  std::shared_ptr<UserFaults> faults_;
};

}  // namespace node_kvm
