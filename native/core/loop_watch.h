// Ends a run on a Worker's thread when its event loop has something to do, because that may be worker.terminate(): V8 can stop only
// JavaScript, and a guest that never exits is not JavaScript. Nothing polls: a thread watches the descriptor that the loop waits on.
#pragma once

#include <mutex>
#include <optional>

#include "core/run.h"

namespace node_kvm {

class LoopWatch {
 public:
  // Watches the calling thread, which is a Worker's; `loop_fd` is the descriptor that its loop waits on (uv_backend_fd). The same thread
  // calls End().
  static void Begin(int loop_fd);
  static void End();

  // Surrounds a run: if this thread is watched, the run is nudged when the loop has something to do.
  class Run {
   public:
    explicit Run(RunPage* page) : watch_(of_thread_) {
      if (watch_ != nullptr) watch_->Enter(page);
    }
    ~Run() {
      if (watch_ != nullptr) watch_->Enter(nullptr);
    }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;
    // Called when the run left the guest and enters it again.
    void Again(RunPage* page) const {
      if (watch_ != nullptr) watch_->Enter(page);
    }

   private:
    LoopWatch* const watch_;
  };

  explicit LoopWatch(int loop_fd);
  int loop_fd() const { return loop_fd_; }
  void Nudge();

 private:
  void Enter(RunPage* page);

  static STATIC_THREAD_LOCAL LoopWatch* of_thread_;
  const int loop_fd_;
  const pid_t thread_;
  std::mutex mutex_;
  RunPage* page_ = nullptr;
  // A nudge that came between two runs is kept for the next one, since JavaScript may be past the point where it last looked.
  bool pending_ = false;
  // Counts the nudges of the run in progress. After too many, the run is taken to wait for a page that no thread serves; the Worker that
  // would serve it may be waiting for the end of this one.
  int nudges_ = 0;
  std::optional<LeavingThread> leaving_;
};

}  // namespace node_kvm
