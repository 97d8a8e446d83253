// The pages of a region that this process wrote itself, which KVM's dirty log does not see. Each log is one reader's: to collect is to
// clear. No N-API here.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace node_kvm {

class WriteLog {
 public:
  explicit WriteLog(size_t pages) : words_((pages + 63) / 64) {}
  size_t bytes() const { return words_.size() * sizeof(uint64_t); }
  void Mark(size_t first, size_t last);
  // One bit a page, as KVM_GET_DIRTY_LOG lays it out; `target` has bytes() bytes.
  void Collect(char* target);

 private:
  std::vector<std::atomic<uint64_t>> words_;
};

// The logs of one region.
//
// Why no write is lost: the writer writes the memory and then marks; the reader collects and then copies. A write whose mark comes after
// the collecting is in the next round; one whose mark came before is in memory when the copy is made.
class WriteLogs {
 public:
  void Add(const std::shared_ptr<WriteLog>& log);
  void Remove(const WriteLog* log);
  void Wrote(size_t offset, size_t length);

 private:
  std::atomic<int> count_{0};
  std::mutex mutex_;
  std::vector<std::shared_ptr<WriteLog>> logs_;
};

}  // namespace node_kvm
