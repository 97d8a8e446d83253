// Finds the ranges of a process's memory that have pages: most of a large address space is empty, and asking for each of its pages takes
// minutes (Documentation/admin-guide/mm/pagemap.rst). This file uses no N-API.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/linux_abi.h"
#include "core/owned_fd.h"

namespace node_kvm {

// The categories of PAGEMAP_SCAN.
enum PageCategory : uint8_t {
  kPagePresent = kPageIsPresent,
  kPageSwapped = kPageIsSwapped,
  kPageOfZeros = kPageIsPfnzero,
  kPageHuge = kPageIsHuge
};

struct PageRange {
  uint64_t start, end;  // addresses
  // 0 says that the range may have pages, and that each must be asked for.
  uint8_t categories;
};

class PageRanges {
 public:
  // `process` is the process's folder, /proc/PID; when it is empty, there is no process and no memory.
  explicit PageRanges(std::string process) : process_(std::move(process)) {}
  // Returns zero or a negative errno.
  int Open();
  int pagemap() const { return pagemap_.get(); }

  // Appends the ranges within [start, end), in order.
  void Find(uint64_t start, uint64_t end, std::vector<PageRange>* ranges);
  // Reads entries of the pagemap, one for each page. Returns zero or a negative errno.
  int ReadEntries(uint64_t address, uint64_t pages, uint64_t* entries) const;

  // Whether PAGEMAP_SCAN was there, so that the categories are known.
  bool scanned() const { return scanned_; }
  // Without PAGEMAP_SCAN: whether much memory was passed over that has no page of its own, but may map the page of zeros.
  bool passed_over() const { return passed_over_; }

 private:
  // A mapping of /proc/PID/smaps, and the number of pages that it counts.
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
