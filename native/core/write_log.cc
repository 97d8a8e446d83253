#include "core/write_log.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

namespace node_kvm {
namespace {

constexpr size_t kPage = 4096;

}  // namespace

void WriteLog::Mark(uint64_t first, uint64_t last) {
  if (last < first_ || first >= first_ + pages_) return;
  const uint64_t end = std::min(last - first_, pages_ - 1);
  for (uint64_t page = first < first_ ? 0 : first - first_; page <= end; ++page) {
    if (page % 64 == 0 && end - page >= 63) {
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

uint64_t WriteLogs::NextId() {
  static std::atomic<uint64_t> next{0};
  return ++next;
}

std::shared_ptr<WriteLogs> WriteLogs::OfFile(int fd) {
  struct Files {
    std::mutex mutex;
    std::map<std::pair<dev_t, ino_t>, std::weak_ptr<WriteLogs>> logs;
    size_t sweep_at = 64;
  };
  // This is never destroyed: a Worker may be in it when the process ends.
  static auto* files = new Files;
  struct stat file;
  if (fstat(fd, &file) < 0) return std::make_shared<WriteLogs>();
  const std::lock_guard lock(files->mutex);
  if (files->logs.size() >= files->sweep_at) {
    std::erase_if(files->logs, [](const auto& known) { return known.second.expired(); });
    files->sweep_at = std::max<size_t>(64, 2 * files->logs.size());
  }
  std::weak_ptr<WriteLogs>& known = files->logs[{file.st_dev, file.st_ino}];
  auto logs = known.lock();
  if (logs == nullptr) known = logs = std::make_shared<WriteLogs>();
  return logs;
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

void WriteLogs::Wrote(uint64_t offset, uint64_t length) {
  // This read also stores, so that the written bytes are visible before the logs are looked at. A log that was added just now begins with
  // all pages.
  if (length == 0 || count_.fetch_add(0) == 0) return;
  const std::lock_guard lock(mutex_);
  for (const auto& log : logs_) log->Mark(offset / kPage, (offset + length - 1) / kPage);
}

}  // namespace node_kvm
