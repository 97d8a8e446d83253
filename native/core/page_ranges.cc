#include "core/page_ranges.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace node_kvm {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kChunk = 1 << 16;  // how many pages are looked at in one go
// Below this size, where the kernel knows no ranges, each page is asked for, which takes milliseconds.
constexpr uint64_t kSmall = uint64_t{4} << 30;
constexpr uint64_t kPresentBit = uint64_t{1} << 63, kSwappedBit = uint64_t{1} << 62, kFileBit = uint64_t{1} << 61,
                   kExclusiveBit = uint64_t{1} << 56;

void Append(uint64_t start, uint64_t end, uint8_t categories, std::vector<PageRange>* ranges) {
  if (!ranges->empty() && ranges->back().end == start && ranges->back().categories == categories)
    ranges->back().end = end;
  else
    ranges->push_back({start, end, categories});
}

}  // namespace

int PageRanges::Open() {
  if (process_.empty()) return 0;
  pagemap_ = OwnedFd(open((process_ + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC));
  return pagemap_.get() < 0 ? -errno : 0;
}

void PageRanges::Find(uint64_t start, uint64_t end, std::vector<PageRange>* ranges) {
  if (pagemap_.get() < 0 || (may_scan_ && Scan(start, end, ranges))) return;
  if (end - start <= kSmall)
    Append(start, end, 0, ranges);
  else
    FindCounted(start, end, ranges);
}

// Returns false, and appends nothing, where the kernel cannot do it.
bool PageRanges::Scan(uint64_t start, uint64_t end, std::vector<PageRange>* ranges) {
  const size_t before = ranges->size();
  page_region regions[512];
  while (start < end) {
    pm_scan_arg argument{};
    argument.size = sizeof argument;
    argument.start = start;
    argument.end = end;
    argument.vec = reinterpret_cast<uintptr_t>(regions);
    argument.vec_len = 512;
    argument.category_anyof_mask = kPagePresent | kPageSwapped;
    argument.return_mask = kPagePresent | kPageSwapped | kPageOfZeros | kPageHuge;
    const int found = ioctl(pagemap_.get(), kPagemapScan, &argument);
    if (found < 0 && errno == EINTR) continue;
    if (found < 0) {
      may_scan_ = errno != ENOTTY && errno != EINVAL;
      ranges->resize(before);
      return false;
    }
    scanned_ = true;
    for (int index = 0; index < found; index++)
      Append(std::max(regions[index].start, start), std::min(regions[index].end, end), static_cast<uint8_t>(regions[index].categories),
             ranges);
    if (argument.walk_end <= start) break;
    start = argument.walk_end;
  }
  return true;
}

// Finds the mappings that have pages by the kernel's own counts.
void PageRanges::FindCounted(uint64_t start, uint64_t end, std::vector<PageRange>* ranges) {
  const std::vector<Counted>& all = Smaps();
  if (all.empty()) return Append(start, end, 0, ranges);
  auto mapping = std::partition_point(all.begin(), all.end(), [&](const Counted& each) { return each.end <= start; });
  for (; mapping != all.end() && mapping->start < end; ++mapping) {
    const uint64_t from = std::max(mapping->start, start), to = std::min(mapping->end, end);
    if (to - from <= kSmall)
      Append(from, to, 0, ranges);
    else if (mapping->pages == 0)
      passed_over_ = true;
    else
      ReadCounted(*mapping, from, to, ranges);
  }
}

// Reads until it has found as many pages as the kernel counts. The kernel does not count the page of zeros, which looks here like a present
// page that is neither a file's nor exclusively this process's. A page that several processes share looks the same; then the mapping is
// read to its end.
void PageRanges::ReadCounted(const Counted& mapping, uint64_t start, uint64_t end, std::vector<PageRange>* ranges) {
  std::vector<uint64_t> entries(kChunk);
  uint64_t found = 0;
  for (uint64_t at = start; at < end && found < mapping.pages; at += kChunk * kPage) {
    const uint64_t pages = std::min(kChunk, (end - at) / kPage);
    if (ReadEntries(at, pages, entries.data()) != 0) return Append(at, end, 0, ranges);
    for (uint64_t page = 0; page < pages; page++) {
      const uint64_t entry = entries[page], address = at + page * kPage;
      if ((entry & (kPresentBit | kSwappedBit)) == 0) continue;
      Append(address, address + kPage, entry & kPresentBit ? kPagePresent : kPageSwapped, ranges);
      if ((entry & kSwappedBit) != 0 || (entry & (kFileBit | kExclusiveBit)) != 0) found++;
    }
  }
  passed_over_ = true;
}

int PageRanges::ReadEntries(uint64_t address, uint64_t pages, uint64_t* entries) const {
  std::fill_n(entries, pages, 0);
  if (pagemap_.get() < 0) return 0;
  char* target = reinterpret_cast<char*>(entries);
  for (size_t done = 0; done < pages * 8;) {
    const ssize_t got = pread(pagemap_.get(), target + done, pages * 8 - done, static_cast<off_t>(address / kPage * 8 + done));
    if (got < 0 && errno == EINTR) continue;
    // Past the end of the address space the file ends: nothing is there. The file of a process that ended reads as empty too; the caller
    // checks for that.
    if (got == 0 || (got < 0 && errno == EINVAL)) break;
    if (got < 0) return -errno;
    done += static_cast<size_t>(got);
  }
  return 0;
}

// Reads /proc/PID/smaps (proc(5)). Returns nothing where it cannot be read.
const std::vector<PageRanges::Counted>& PageRanges::Smaps() {
  if (std::exchange(counted_, true)) return smaps_;
  const std::unique_ptr<FILE, int (*)(FILE*)> file(fopen((process_ + "/smaps").c_str(), "re"), fclose);
  if (file == nullptr) return smaps_;
  char line[512];
  bool ended = true;
  while (fgets(line, sizeof line, file.get()) != nullptr) {
    // The rest of a longer line is the name of a file, which anyone may have chosen.
    const bool begins = ended;
    ended = strchr(line, '\n') != nullptr;
    if (!begins) continue;
    unsigned long start, end, kib;
    if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
      smaps_.push_back({start, end, 0});
    } else if (!smaps_.empty()) {
      for (const char* name : {"Rss: %lu", "Swap: %lu", "Shared_Hugetlb: %lu", "Private_Hugetlb: %lu"})
        if (sscanf(line, name, &kib) == 1) smaps_.back().pages += kib / 4;
    }
  }
  return smaps_;
}

}  // namespace node_kvm
