// The three tables side by side, a row for each guest page that the host holds or the second stage maps: memslots and leaves come from the
// caller, the host page tables from /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst). No N-API here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/page_ranges.h"

namespace node_kvm {

struct SlotRange {
  double gpa, size, hva;
  uint8_t address_space;
};
// Columns of the caller's, ordered by address space and GPA.
struct LeafView {
  size_t count;
  const double *gpa, *hpa;
  const uint64_t* spte;
  const uint8_t *level, *address_space, *kind;
};

enum HostFlag : uint16_t {
  kHostPresent = 1,
  kHostSwapped = 2,
  kHostFileOrShared = 4,
  kHostExclusive = 8,
  kHostSoftDirty = 16,
  kHostHuge = 32,      // by one entry of an upper level: PAGEMAP_SCAN says so
  kHostZeroPage = 64,  // the page of zeros that reads of untouched memory share: PAGEMAP_SCAN
};

struct PageRow {
  double gpa, hva, hpa, second_hpa;
  uint64_t spte;
  uint32_t slot;
  uint16_t host;
  uint8_t level, kind;
};

struct PageRows {
  std::vector<PageRow> rows;
  bool frames_hidden = false;     // a page was there, and its frame number was not shown
  bool scanned = false;           // PAGEMAP_SCAN was there
  bool passed_over = false;       // it was not, and untouched memory that may map the page of zeros is not told
  uint64_t impossible_slots = 0;  // left out: no memslot can be so
  uint64_t compared = 0;          // leaves' pages whose frame both sides know,
  uint64_t disagreeing = 0;       // and of those, where it is another
};

// `host` is open, of the process the slots belong to. Zero, or a negative errno. Slots and leaves are ordered by address space
// and GPA. `from` and `to` bound the GPAs.
int JoinPages(PageRanges* host, const std::vector<SlotRange>& slots, const LeafView& leaves, double from, double to, PageRows* result);

}  // namespace node_kvm
