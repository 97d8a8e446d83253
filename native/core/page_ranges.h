// Where in a process's memory there are pages, by ranges: most of a large address space is empty, and to ask for each of its pages takes
// minutes (Documentation/admin-guide/mm/pagemap.rst). No N-API here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/linux_abi.h"
#include "core/owned_fd.h"

namespace node_kvm {

// Of PAGEMAP_SCAN.
enum PageCategory : uint8_t {
  kPagePresent = kPageIsPresent,
  kPageSwapped = kPageIsSwapped,
  kPageOfZeros = kPageIsPfnzero,
  kPageHuge = kPageIsHuge
};

struct PageRange {
  uint64_t start, end;  // addresses
  // 0: there may be pages, each of which must be asked for.
  uint8_t categories;
};

class PageRanges {
 public:
  // `process` is its folder, /proc/PID; empty for none, whose memory is empty.
  explicit PageRanges(std::string process) : process_(std::move(process)) {}
  // Zero, or a negative errno.
  int Open();
  int pagemap() const { return pagemap_.get(); }

  // Appends what lies in [start, end), in order.
  void Find(uint64_t start, uint64_t end, std::vector<PageRange>* ranges);
  // Entries of the pagemap, one a page. Zero, or a negative errno.
  int ReadEntries(uint64_t address, uint64_t pages, uint64_t* entries) const;

  // PAGEMAP_SCAN was there: categories are known.
  bool scanned() const { return scanned_; }
  // Where it was not: much memory was passed over that has no page of its own, but may have mapped the page of zeros.
  bool passed_over() const { return passed_over_; }

 private:
  // A mapping of /proc/PID/smaps, and how many pages it counts.
  struct Counted {
    uint64_t start, end, pages;
  };
  bool Scan(uint64_t start, uint64_t end, std::vector<PageRange>* ranges);
  void FindCounted(uint64_t start, uint64_t end, std::vector<PageRange>* ranges);
  void ReadCounted(const Counted& mapping, uint64_t start, uint64_t end, std::vector<PageRange>* ranges);
  const std::vector<Counted>& Smaps();

  std::string process_;
  OwnedFd pagemap_;
  bool may_scan_ = true;
  bool scanned_ = false;
  bool passed_over_ = false;
  bool counted_ = false;
  std::vector<Counted> smaps_;
};

}  // namespace node_kvm
