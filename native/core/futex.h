// futex(2) on a word of this process: a wait that a signal ends, which std::atomic::wait is not.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>

namespace node_kvm {

// Sleeps while the word holds `value`, for at most `limit`; returns when woken, when a signal came, or for no reason: look again.
inline void FutexWait(std::atomic<uint32_t>& word, uint32_t value, const timespec* limit = nullptr) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, limit, nullptr, 0);
}
inline void FutexWakeAll(std::atomic<uint32_t>& word) { syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }

// What is over in moments is waited for awake, as KVM does for a halted guest (halt-polling.rst): a thread that slept is woken late, and,
// once awake, takes the processor from the one that woke it for a whole slice. Every other thread goes first meanwhile. Whether it came.
template <typename Done>
bool PollFor(std::chrono::microseconds limit, Done done) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!done()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    sched_yield();
  }
  return true;
}

}  // namespace node_kvm
