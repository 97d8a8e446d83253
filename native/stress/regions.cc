// Several threads at once use, remap, protect and drop one region.
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

#include <atomic>
#include <thread>
#include <vector>

#include "core/region.h"

using node_kvm::Region;
using node_kvm::RegionKind;
using node_kvm::RegionRequest;

namespace {

constexpr size_t kSize = 64 * 4096;
constexpr size_t kPage = 4096;

// Each thread writes a page of its own, so that it knows what it must read back.
int Exercise(std::shared_ptr<Region> region, size_t number) {
  int wrong = 0;
  const size_t offset = number * kPage;
  for (int round = 0; round < 2000; ++round) {
    const char value = static_cast<char>(round);
    char seen = 0;
    region->Fill(offset, kPage, static_cast<uint8_t>(value));
    if (region->Read(offset, &seen, 1) != 0 || seen != value) ++wrong;
    if (round % 8 == 0 && (region->Remap(offset, kPage, nullptr) != 0 || region->Read(offset, &seen, 1) != 0 || seen != 0)) ++wrong;
    if (round % 16 == 0 && region->HoldForBuffer() == 0) region->ReleaseBuffer();
    if (round % 32 == 0) region->Advise(offset, kPage, MADV_DONTNEED);
    if (region->Read(kSize - 1, &seen, 2) != -ERANGE) ++wrong;
  }
  return wrong;
}

}  // namespace

int main() {
  std::atomic<int> wrong{0};
  for (const RegionKind kind : {RegionKind::kAnonymous, RegionKind::kMemfd}) {
    RegionRequest request;
    request.kind = kind;
    request.size = kSize;
    std::shared_ptr<Region> region;
    if (Region::Map(request, &region) != 0) return 1;
    std::vector<std::thread> threads;
    for (size_t number = 0; number < 4; ++number) threads.emplace_back([region, number, &wrong] { wrong += Exercise(region, number); });
    region.reset();
    for (auto& thread : threads) thread.join();
  }
  printf("%d wrong\n", wrong.load());
  return wrong == 0 ? 0 : 1;
}
