#include "page_rows.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace node_kvm {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kChunk = 1 << 16;  // pages looked at in one go
constexpr uint64_t kFrameBits = (uint64_t{1} << 55) - 1;
constexpr uint8_t kMmio = 4;

// PAGEMAP_SCAN of <linux/fs.h>, since 6.7; the distribution's headers may be older.
struct ScanArgument {
  uint64_t size, flags, start, end, walk_end, regions, region_count, most_pages, inverted, mask, any_of, returned;
};
struct ScanRegion {
  uint64_t start, end, categories;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArgument);
constexpr uint64_t kIsPresent = 8, kIsSwapped = 16, kIsZeroPage = 32, kIsHuge = 64;

constexpr uint8_t kMostLevels = 5;
uint64_t Span(uint8_t level) { return uint64_t{1} << (9 * (level - 1)); }

// What a memslot can be (KVM_MEM_MAX_NR_PAGES of include/linux/kvm_host.h; 52 bits of guest-physical, 57 of virtual address). A slot that
// was read while it was changed may be anything.
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
  Joiner(int pagemap, const std::vector<SlotRange>& slots, const LeafView& leaves, PageRows* result)
      : pagemap_(pagemap), slots_(slots), leaves_(leaves), result_(*result), entries_(kChunk), categories_(kChunk), painted_(kChunk) {
    for (size_t index = 0; index < leaves.count; index++)
      if (leaves.level[index] >= 1 && leaves.level[index] <= kMostLevels && WithinPages(leaves.gpa[index], 0, kGpaEnd) &&
          WithinPages(leaves.hpa[index], 0, kGpaEnd))
        by_level_[leaves.level[index] - 1].push_back(index);
    result->rows.reserve(leaves.count);
  }

  int Slot(size_t number, uint64_t from, uint64_t to) {
    const SlotRange& slot = slots_[number];
    const auto first = static_cast<uint64_t>(slot.gpa) / kPage;
    const uint64_t end = std::min(first + static_cast<uint64_t>(slot.size) / kPage, to);
    // Leaves are in the slots' order, but a slot may be looked at in parts.
    for (uint64_t page = std::max(first, from); page < end; page += kChunk)
      if (const int error = Chunk(number, page, std::min(kChunk, end - page)); error != 0) return error;
    return 0;
  }

 private:
  int Chunk(size_t number, uint64_t first, uint64_t pages) {
    const SlotRange& slot = slots_[number];
    const uint64_t hva = static_cast<uint64_t>(slot.hva) + (first * kPage - static_cast<uint64_t>(slot.gpa));
    std::fill_n(painted_.begin(), pages, -1);
    const bool any_leaf = Paint(slot.address_space, first, pages);
    const int scanned = Scan(hva, pages);
    if (scanned < 0) return scanned;
    if (scanned == 0 && !any_leaf) return 0;
    if (const int error = ReadEntries(hva, pages); error != 0) return error;
    for (uint64_t page = 0; page < pages; page++) Row(number, first + page, hva + page * kPage, page);
    Compare(slot.address_space, first, pages);
    return 0;
  }

  template <typename Visit>
  bool EachLeaf(uint8_t space, uint64_t first, uint64_t pages, Visit visit) {
    bool any = false;
    for (uint8_t level = kMostLevels; level >= 1; level--) {
      const std::vector<size_t>& found = by_level_[level - 1];
      // An entry begins on a border of its own size: the first that can reach into the range begins where the range's first page is rounded
      // to.
      const auto begin = std::pair(space, static_cast<double>((first & ~(Span(level) - 1)) * kPage));
      auto at = std::lower_bound(found.begin(), found.end(), begin, [this](size_t index, const auto& wanted) {
        return std::pair(leaves_.address_space[index], leaves_.gpa[index]) < wanted;
      });
      for (; at != found.end() && leaves_.address_space[*at] == space; ++at) {
        const uint64_t gfn = static_cast<uint64_t>(leaves_.gpa[*at]) / kPage;
        if (gfn >= first + pages) break;
        const uint64_t end = std::min(gfn + Span(level), first + pages);
        for (uint64_t page = std::max(gfn, first); page < end; page++) visit(*at, page - first, page - gfn), any = true;
      }
    }
    return any;
  }

  // Smaller pages over larger, and a mapping over a note that the page is MMIO.
  bool Paint(uint8_t space, uint64_t first, uint64_t pages) {
    return EachLeaf(space, first, pages, [&](size_t index, uint64_t page, uint64_t) {
      if (painted_[page] < 0 || leaves_.kind[index] != kMmio) painted_[page] = static_cast<int64_t>(index);
    });
  }

  // Whether anything is there; 1 where that cannot be told beforehand.
  int Scan(uint64_t hva, uint64_t pages) {
    std::fill_n(categories_.begin(), pages, 0);
    if (!may_scan_) return 1;
    ScanRegion regions[512];
    uint64_t start = hva;
    const uint64_t end = hva + pages * kPage;
    bool any = false;
    while (start < end) {
      ScanArgument argument{sizeof argument,
                            0,
                            start,
                            end,
                            0,
                            reinterpret_cast<uintptr_t>(regions),
                            512,
                            0,
                            0,
                            0,
                            kIsPresent | kIsSwapped,
                            kIsPresent | kIsSwapped | kIsZeroPage | kIsHuge};
      const int found = ioctl(pagemap_, kPagemapScan, &argument);
      if (found < 0 && errno == EINTR) continue;
      if (found < 0) {
        may_scan_ = false;
        return 1;
      }
      result_.scanned = true;
      for (int index = 0; index < found; index++)
        for (uint64_t at = std::max(regions[index].start, hva); at < std::min<uint64_t>(regions[index].end, end); at += kPage)
          categories_[(at - hva) / kPage] = static_cast<uint8_t>(regions[index].categories);
      any = any || found > 0;
      if (argument.walk_end <= start) break;
      start = argument.walk_end;
    }
    return any ? 1 : 0;
  }

  int ReadEntries(uint64_t hva, uint64_t pages) {
    std::fill_n(entries_.begin(), pages, 0);
    char* target = reinterpret_cast<char*>(entries_.data());
    size_t done = 0;
    while (done < pages * 8) {
      const ssize_t got = pread(pagemap_, target + done, pages * 8 - done, static_cast<off_t>(hva / kPage * 8 + done));
      if (got < 0 && errno == EINTR) continue;
      // Past the end of the address space the file ends: nothing is there. A process that ended reads as empty too (the caller checks).
      if (got == 0 || (got < 0 && errno == EINVAL)) break;
      if (got < 0) return -errno;
      done += static_cast<size_t>(got);
    }
    return 0;
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
                              (categories_[page] & kIsHuge ? kHostHuge : 0) | (categories_[page] & kIsZeroPage ? kHostZeroPage : 0));
    if (painted >= 0) {
      const auto leaf = static_cast<size_t>(painted);
      row.second_hpa = leaves_.kind[leaf] == kMmio ? 0 : leaves_.hpa[leaf] + (row.gpa - leaves_.gpa[leaf]);
      row.spte = leaves_.spte[leaf];
      row.level = leaves_.level[leaf];
      row.kind = leaves_.kind[leaf];
    }
    result_.rows.push_back(row);
  }

  // Every leaf, not the one of each page that the row shows.
  void Compare(uint8_t space, uint64_t first, uint64_t pages) {
    EachLeaf(space, first, pages, [&](size_t index, uint64_t page, uint64_t within) {
      const uint64_t entry = entries_[page], frame = entry >> 63 ? entry & kFrameBits : 0;
      if (leaves_.kind[index] == kMmio || frame == 0) return;
      result_.compared++;
      if (static_cast<uint64_t>(leaves_.hpa[index]) / kPage + within != frame) result_.disagreeing++;
    });
  }

  const int pagemap_;
  const std::vector<SlotRange>& slots_;
  const LeafView& leaves_;
  PageRows& result_;
  std::vector<uint64_t> entries_;
  std::vector<uint8_t> categories_;
  std::vector<int64_t> painted_;
  std::array<std::vector<size_t>, kMostLevels> by_level_;
  bool may_scan_ = true;
};

}  // namespace

int JoinPages(int pagemap, const std::vector<SlotRange>& slots, const LeafView& leaves, double from, double to, PageRows* result) {
  Joiner joiner(pagemap, slots, leaves, result);
  for (size_t number = 0; number < slots.size(); number++)
    if (!Possible(slots[number]))
      result->impossible_slots++;
    else if (const int error = joiner.Slot(number, static_cast<uint64_t>(from) / kPage, (static_cast<uint64_t>(to) + kPage - 1) / kPage);
             error != 0)
      return error;
  return 0;
}

}  // namespace node_kvm
