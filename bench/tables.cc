// The reference for bench/tables.ts: it reads all three tables of a process's VM, or its memslots, into plain arrays, by the same BPF
// program and reader as the add-on, without JavaScript. It prints the nanoseconds of each round; they do not include loading the program.
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <memory>
#include <string>
#include <vector>

#include "../native/observe/page_rows.h"
#include "../native/observe/table_reader.h"

using namespace node_kvm;

namespace {

struct Slots {
  std::vector<double> gpa, size, hva;
  std::vector<uint32_t> flags;
  std::vector<int16_t> id;
  std::vector<uint8_t> address_space, guest_memfd;

  explicit Slots(size_t count) : gpa(count), size(count), hva(count), flags(count), id(count), address_space(count), guest_memfd(count) {}
  SlotColumns columns() { return {gpa.data(), size.data(), hva.data(), flags.data(), id.data(), address_space.data(), guest_memfd.data()}; }
};

struct Leaves {
  std::vector<double> gpa, hpa;
  std::vector<uint64_t> spte;
  std::vector<uint32_t> role;
  std::vector<uint8_t> level, address_space, kind;

  explicit Leaves(size_t count) : gpa(count), hpa(count), spte(count), role(count), level(count), address_space(count), kind(count) {}
  LeafColumns columns() { return {gpa.data(), hpa.data(), spte.data(), role.data(), level.data(), address_space.data(), kind.data()}; }
  LeafView view() const { return {gpa.size(), gpa.data(), hpa.data(), spte.data(), level.data(), address_space.data(), kind.data()}; }
};

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

// Returns the number of rows.
size_t Read(const TableRequest& request) {
  std::vector<SlotRange> ranges;
  std::unique_ptr<Leaves> leaves;
  const auto take = [&](const TableWalk& walk) {
    for (const bpf::vm_record& vm : walk.vms()) {
      Slots slots(vm.slots);
      walk.FillSlots(vm, slots.columns());
      ranges.reserve(vm.slots);
      for (size_t row = 0; row < vm.slots; row++)
        ranges.push_back({slots.gpa[row], slots.size[row], slots.hva[row], slots.address_space[row]});
      if (!request.tables) continue;
      uint32_t lost;
      const std::vector<Leaf> found = walk.Leaves(vm, &lost);
      leaves = std::make_unique<Leaves>(found.size());
      TableWalk::FillLeaves(vm, found, leaves->columns());
    }
  };
  TableFailure failure;
  if (!TableReader::Instance().Walk(request, take, &failure)) {
    fprintf(stderr, "%s: %d\n", failure.step, failure.error);
    exit(1);
  }
  if (!request.tables) return ranges.size();
  PageRanges host("/proc/" + std::to_string(request.pid));
  PageRows pages;
  if (host.Open() != 0 || JoinPages(&host, ranges, leaves->view(), 0, static_cast<double>(uint64_t{1} << 52), &pages) != 0) exit(1);
  return pages.rows.size();
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) return 2;
  // Freed memory stays with the process, so that a round does not pay for getting it from the kernel again.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  TableRequest request;
  request.pid = static_cast<uint32_t>(atoi(words[1]));
  request.tables = strcmp(words[2], "tables") == 0;
  const size_t rows = Read(request);
  for (int round = atoi(words[3]); round > 0; round--) {
    const int64_t start = Now();
    if (Read(request) != rows) return 1;
    printf("%lld\n", static_cast<long long>(Now() - start));
  }
  return 0;
}
