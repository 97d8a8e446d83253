// Logs the pages of a memory that this process itself wrote, which KVM's dirty log does not see. Each log has one reader, since collecting
// clears it. This file uses no N-API.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace node_kvm {

// The log of a window of the memory: `pages` pages from `first` on.
class WriteLog {
 public:
  WriteLog(uint64_t first, uint64_t pages) : first_(first), pages_(pages), words_((pages + 63) / 64) {}
  size_t bytes() const { return words_.size() * sizeof(uint64_t); }
  // Pages outside the window are left out.
  void Mark(uint64_t first, uint64_t last);
  // Writes one bit for each page, in the layout of KVM_GET_DIRTY_LOG; `target` has bytes() bytes.
  void Collect(char* target);

 private:
  const uint64_t first_, pages_;
  std::vector<std::atomic<uint64_t>> words_;
};

// The logs of one memory: a region's own, or a file, which several regions may map.
//
// Why no write is lost: the writer writes the memory and then marks; the reader collects and then copies. A write whose mark comes after
// the collecting is in the next round. A write whose mark came before it is in memory when the copy is made.
class WriteLogs {
 public:
  // Returns the logs of the file behind a descriptor: all descriptors of one file share them.
  static std::shared_ptr<WriteLogs> OfFile(int fd);

  // Tells one memory from another in this process.
  uint64_t id() const { return id_; }
  void Add(const std::shared_ptr<WriteLog>& log);
  void Remove(const WriteLog* log);
  // Takes bytes from the start of the memory.
  void Wrote(uint64_t offset, uint64_t length);

 private:
  static uint64_t NextId();

  const uint64_t id_ = NextId();
  std::atomic<int> count_{0};
  std::mutex mutex_;
  std::vector<std::shared_ptr<WriteLog>> logs_;
};

// A log that exists as long as somebody reads it.
class WriteRecording {
 public:
  WriteRecording(std::shared_ptr<WriteLogs> logs, uint64_t first, uint64_t pages)
      : logs_(std::move(logs)), log_(std::make_shared<WriteLog>(first, pages)) {
    logs_->Add(log_);
  }
  ~WriteRecording() { logs_->Remove(log_.get()); }
  WriteRecording(const WriteRecording&) = delete;
  WriteRecording& operator=(const WriteRecording&) = delete;
  WriteLog& log() { return *log_; }

 private:
  const std::shared_ptr<WriteLogs> logs_;
  const std::shared_ptr<WriteLog> log_;
};

}  // namespace node_kvm
