#include "observe/page_rows.h"

#include <algorithm>
#include <array>

namespace node_kvm {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kChunk = 1 << 16;  // how many pages are looked at in one go
constexpr uint64_t kFrameBits = (uint64_t{1} << 55) - 1;
constexpr uint8_t kMmio = 4;

constexpr uint8_t kMostLevels = 5;
uint64_t Span(uint8_t level) { return uint64_t{1} << (9 * (level - 1)); }

// The limits of a memslot (KVM_MEM_MAX_NR_PAGES of include/linux/kvm_host.h; guest-physical addresses have 52 bits, virtual ones 57). A
// slot that was read while it changed may hold any numbers.
constexpr double kMostSlotBytes = double(INT32_MAX) * kPage, kGpaEnd = double(uint64_t{1} << 52), kHvaEnd = double(uint64_t{1} << 57);
bool WithinPages(double start, double size, double end) {
  return start >= 0 && start < end && start + size <= end && static_cast<uint64_t>(start) % kPage == 0;
}
bool Possible(const SlotRange& slot) {
  return slot.size > 0 && slot.size <= kMostSlotBytes && static_cast<uint64_t>(slot.size) % kPage == 0 &&
         WithinPages(slot.gpa, slot.size, kGpaEnd) && WithinPages(slot.hva, slot.size, kHvaEnd);
}

class Joiner {
 public:
  Joiner(PageRanges* pages, const std::vector<SlotRange>& slots, const LeafView& leaves, PageRows* result)
      : pages_(*pages), slots_(slots), leaves_(leaves), result_(*result), entries_(kChunk), categories_(kChunk), painted_(kChunk) {
    for (size_t index = 0; index < leaves.count; index++)
      if (leaves.level[index] >= 1 && leaves.level[index] <= kMostLevels && WithinPages(leaves.gpa[index], 0, kGpaEnd) &&
          WithinPages(leaves.hpa[index], 0, kGpaEnd))
        by_level_[leaves.level[index] - 1].push_back(index);
    result->rows.reserve(leaves.count);
  }

  int Slot(size_t number, uint64_t from, uint64_t to) {
    const SlotRange& slot = slots_[number];
    const auto start = static_cast<uint64_t>(slot.gpa) / kPage;
    const uint64_t first = std::max(start, from), end = std::min(start + static_cast<uint64_t>(slot.size) / kPage, to);
    if (first >= end) return 0;
    const uint64_t hva = static_cast<uint64_t>(slot.hva) + (first - start) * kPage;
    ranges_.clear();
    pages_.Find(hva, hva + (end - first) * kPage, &ranges_);
    // Parts in which neither side has a page are passed over.
    auto range = ranges_.begin();
    for (uint64_t page = first; page < end;) {
      while (range != ranges_.end() && range->end <= hva + (page - first) * kPage) ++range;
      const uint64_t held = range == ranges_.end() ? end : std::max(page, first + (std::max(range->start, hva) - hva) / kPage);
      page = std::min(held, NextLeaf(slot.address_space, page, end));
      if (page >= end) break;
      const uint64_t pages = std::min(kChunk, end - page);
      if (const int error = Chunk(number, page, pages, range); error != 0) return error;
      page += pages;
    }
    return 0;
  }

 private:
  using Ranges = std::vector<PageRange>;

  int Chunk(size_t number, uint64_t first, uint64_t pages, Ranges::const_iterator range) {
    const SlotRange& slot = slots_[number];
    const uint64_t hva = static_cast<uint64_t>(slot.hva) + (first * kPage - static_cast<uint64_t>(slot.gpa));
    std::fill_n(painted_.begin(), pages, -1);
    Paint(slot.address_space, first, pages);
    std::fill_n(categories_.begin(), pages, 0);
    for (; range != ranges_.end() && range->start < hva + pages * kPage; ++range)
      for (uint64_t at = std::max(range->start, hva); at < std::min(range->end, hva + pages * kPage); at += kPage)
        categories_[(at - hva) / kPage] = range->categories;
    if (const int error = pages_.ReadEntries(hva, pages, entries_.data()); error != 0) return error;
    for (uint64_t page = 0; page < pages; page++) Row(number, first + page, hva + page * kPage, page);
    Compare(slot.address_space, first, pages);
    return 0;
  }

  // The leaves of a level, from the one that covers `page` on: an entry begins on a border of its own size.
  std::vector<size_t>::const_iterator LeavesFrom(uint8_t level, uint8_t space, uint64_t page) const {
    const std::vector<size_t>& found = by_level_[level - 1];
    const auto begin = std::pair(space, static_cast<double>((page & ~(Span(level) - 1)) * kPage));
    return std::lower_bound(found.begin(), found.end(), begin, [this](size_t index, const auto& wanted) {
      return std::pair(leaves_.address_space[index], leaves_.gpa[index]) < wanted;
    });
  }

  // Returns the first page from `first` on that a leaf maps, or `end`.
  uint64_t NextLeaf(uint8_t space, uint64_t first, uint64_t end) const {
    uint64_t next = end;
    for (uint8_t level = 1; level <= kMostLevels; level++) {
      const auto at = LeavesFrom(level, space, first);
      if (at != by_level_[level - 1].end() && leaves_.address_space[*at] == space)
        next = std::min(next, std::max(first, static_cast<uint64_t>(leaves_.gpa[*at]) / kPage));
    }
    return next;
  }

  template <typename Visit>
  void EachLeaf(uint8_t space, uint64_t first, uint64_t pages, Visit visit) {
    for (uint8_t level = kMostLevels; level >= 1; level--) {
      const auto end_of_level = by_level_[level - 1].end();
      for (auto at = LeavesFrom(level, space, first); at != end_of_level && leaves_.address_space[*at] == space; ++at) {
        const uint64_t gfn = static_cast<uint64_t>(leaves_.gpa[*at]) / kPage;
        if (gfn >= first + pages) break;
        const uint64_t end = std::min(gfn + Span(level), first + pages);
        for (uint64_t page = std::max(gfn, first); page < end; page++) visit(*at, page - first, page - gfn);
      }
    }
  }

  // Smaller pages are painted over larger ones, and a mapping over a note that the page is MMIO.
  void Paint(uint8_t space, uint64_t first, uint64_t pages) {
    EachLeaf(space, first, pages, [&](size_t index, uint64_t page, uint64_t) {
      if (painted_[page] < 0 || leaves_.kind[index] != kMmio) painted_[page] = static_cast<int64_t>(index);
    });
  }

  void Row(size_t slot, uint64_t gfn, uint64_t hva, uint64_t page) {
    const uint64_t entry = entries_[page];
    const bool present = entry >> 63, swapped = (entry >> 62) & 1;
    const int64_t painted = painted_[page];
    if (!present && !swapped && painted < 0) return;
    PageRow row{};
    row.gpa = static_cast<double>(gfn * kPage);
    row.hva = static_cast<double>(hva);
    row.slot = static_cast<uint32_t>(slot);
    const uint64_t frame = present ? entry & kFrameBits : 0;
    if (present && frame == 0) result_.frames_hidden = true;
    row.hpa = static_cast<double>(frame * kPage);
    row.host =
        static_cast<uint16_t>((present ? kHostPresent : 0) | (swapped ? kHostSwapped : 0) | ((entry >> 61) & 1 ? kHostFileOrShared : 0) |
                              ((entry >> 56) & 1 ? kHostExclusive : 0) | ((entry >> 55) & 1 ? kHostSoftDirty : 0) |
                              (categories_[page] & kPageHuge ? kHostHuge : 0) | (categories_[page] & kPageOfZeros ? kHostZeroPage : 0));
    if (painted >= 0) {
      const auto leaf = static_cast<size_t>(painted);
      row.second_hpa = leaves_.kind[leaf] == kMmio ? 0 : leaves_.hpa[leaf] + (row.gpa - leaves_.gpa[leaf]);
      row.spte = leaves_.spte[leaf];
      row.level = leaves_.level[leaf];
      row.kind = leaves_.kind[leaf];
    }
    result_.rows.push_back(row);
  }

  // Compares every leaf, not only the one that a page's row shows.
  void Compare(uint8_t space, uint64_t first, uint64_t pages) {
    EachLeaf(space, first, pages, [&](size_t index, uint64_t page, uint64_t within) {
      const uint64_t entry = entries_[page], frame = entry >> 63 ? entry & kFrameBits : 0;
      if (leaves_.kind[index] == kMmio || frame == 0) return;
      result_.compared++;
      if (static_cast<uint64_t>(leaves_.hpa[index]) / kPage + within != frame) result_.disagreeing++;
    });
  }

  PageRanges& pages_;
  const std::vector<SlotRange>& slots_;
  const LeafView& leaves_;
  PageRows& result_;
  Ranges ranges_;
  std::vector<uint64_t> entries_;
  std::vector<uint8_t> categories_;
  std::vector<int64_t> painted_;
  std::array<std::vector<size_t>, kMostLevels> by_level_;
};

}  // namespace

int JoinPages(PageRanges* host, const std::vector<SlotRange>& slots, const LeafView& leaves, double from, double to, PageRows* result) {
  Joiner joiner(host, slots, leaves, result);
  const auto first = static_cast<uint64_t>(from) / kPage, end = (static_cast<uint64_t>(to) + kPage - 1) / kPage;
  for (size_t number = 0; number < slots.size(); number++)
    if (!Possible(slots[number]))
      result->impossible_slots++;
    else if (const int error = joiner.Slot(number, first, end); error != 0)
      return error;
  result->scanned = host->scanned();
  result->passed_over = host->passed_over();
  return 0;
}

}  // namespace node_kvm
