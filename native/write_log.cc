#include "write_log.h"

#include <algorithm>
#include <cstring>

namespace node_kvm {
namespace {

constexpr size_t kPage = 4096;

}  // namespace

void WriteLog::Mark(size_t first, size_t last) {
  for (size_t page = first; page <= last && page / 64 < words_.size(); ++page) {
    if (page % 64 == 0 && last - page >= 63) {
      words_[page / 64] = ~uint64_t{0};
      page += 63;
    } else {
      words_[page / 64] |= uint64_t{1} << (page % 64);
    }
  }
}

void WriteLog::Collect(char* target) {
  for (auto& word : words_) {
    const uint64_t taken = word == 0 ? 0 : word.exchange(0);
    memcpy(target, &taken, sizeof taken);
    target += sizeof taken;
  }
}

void WriteLogs::Add(const std::shared_ptr<WriteLog>& log) {
  const std::lock_guard lock(mutex_);
  logs_.push_back(log);
  ++count_;
}

void WriteLogs::Remove(const WriteLog* log) {
  const std::lock_guard lock(mutex_);
  count_ -= static_cast<int>(std::erase_if(logs_, [log](const auto& held) { return held.get() == log; }));
}

void WriteLogs::Wrote(size_t offset, size_t length) {
  // A read that also stores, so that what was written is visible before the logs are looked at: a log added just now begins with
  // everything.
  if (length == 0 || count_.fetch_add(0) == 0) return;
  const std::lock_guard lock(mutex_);
  for (const auto& log : logs_) log->Mark(offset / kPage, (offset + length - 1) / kPage);
}

}  // namespace node_kvm
