// Ends a run on a Worker's thread when its event loop has something to do, because that may be worker.terminate(): V8 can stop JavaScript
// only, and a guest that never exits is not that. No polling: the descriptor that the loop waits on is itself watched.
#pragma once

#include <mutex>
#include <optional>

#include "core/run.h"

namespace node_kvm {

class LoopWatch {
 public:
  // Of the calling thread, which is a Worker's; `loop_fd` is what its loop waits on (uv_backend_fd). End() is called on it too.
  static void Begin(int loop_fd);
  static void End();

  // Around a run: where this thread is watched, the run is nudged when the loop has something to do.
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
    // The run was out, and begins anew.
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
  // A nudge that came between two runs: the next one takes it, since JavaScript may be past its last look.
  bool pending_ = false;
  // How often the run in progress was nudged, and once that was too often, that it waits for a page which nobody serves: the Worker that
  // would serve it waits for the end of this one, say.
  int nudges_ = 0;
  std::optional<LeavingThread> leaving_;
};

}  // namespace node_kvm
