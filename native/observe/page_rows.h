// The three tables side by side, with a row for each guest page that the host holds or the second stage maps. The memslots and leaves come
// from the caller, the host's page tables from /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst). This file uses no N-API.
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
// The caller's columns, ordered by address space and GPA.
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
  kHostHuge = 32,      // one entry of an upper level maps it, as PAGEMAP_SCAN says
  kHostZeroPage = 64,  // the page of zeros that reads of untouched memory share, as PAGEMAP_SCAN says
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
  bool frames_hidden = false;     // a page was there, and its frame number was hidden
  bool scanned = false;           // PAGEMAP_SCAN was there
  bool passed_over = false;       // without PAGEMAP_SCAN: untouched memory that may map the page of zeros was left out
  uint64_t impossible_slots = 0;  // slots that were left out, because no memslot can be like that
  uint64_t compared = 0;          // pages of leaves whose frame both sides know,
  uint64_t disagreeing = 0;       // and how many of them have another frame on each side
};

// `host` is open, for the process to which the slots belong. Slots and leaves are ordered by address space and GPA. `from` and `to` bound
// the GPAs. Returns zero or a negative errno.
int JoinPages(PageRanges* host, const std::vector<SlotRange>& slots, const LeafView& leaves, double from, double to, PageRows* result);

}  // namespace node_kvm
