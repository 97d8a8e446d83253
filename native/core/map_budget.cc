#include "core/map_budget.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "core/owned_fd.h"

namespace node_kvm {
namespace {

// This much is left to the rest of the process: an eighth of the kernel's usual limit.
constexpr long kMostReserve = 8192;

// Returns -1 where the limit cannot be read.
long ReadLimit() {
  FILE* file = fopen("/proc/sys/vm/max_map_count", "re");
  if (file == nullptr) return -1;
  long limit = -1;
  if (fscanf(file, "%ld", &limit) != 1) limit = -1;
  fclose(file);
  return limit;
}

long CountMappings() {
  const OwnedFd file(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return -1;
  std::vector<char> text(1 << 16);
  long lines = 0;
  for (ssize_t got; (got = read(file.get(), text.data(), text.size())) > 0;) lines += std::count(text.begin(), text.begin() + got, '\n');
  return lines;
}

}  // namespace

int TakeMappings(long most) {
  static std::mutex mutex;
  // So many mappings may be made before the next count: counting takes milliseconds where there are many.
  static long room = 0;
  const std::lock_guard lock(mutex);
  if (room < most) {
    const long limit = ReadLimit(), count = CountMappings();
    // Then only the kernel's own limit applies.
    if (limit < 0 || count < 0) return 0;
    const long left = limit - std::min(limit / 8, kMostReserve) - count;
    if (left < most) return -EDQUOT;
    // The rest of the process makes mappings, too, so only half is given out.
    room = std::max(left / 2, most);
  }
  room -= most;
  return 0;
}

}  // namespace node_kvm
