// futex(2) on a word of this process. A signal ends this wait, whereas it does not end std::atomic::wait.
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

// Sleeps while the word holds `value`, for at most `limit`. It returns when the thread is woken, when a signal arrives, or for no reason,
// so the caller must look at the word again.
inline void FutexWait(std::atomic<uint32_t>& word, uint32_t value, const timespec* limit = nullptr) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, limit, nullptr, 0);
}
inline void FutexWakeAll(std::atomic<uint32_t>& word) { syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }

// Waits awake for something that will be done in moments, as KVM does for a halted guest (halt-polling.rst): a thread that slept is woken
// late and, once awake, takes the processor for a whole slice from the thread that woke it. While it polls, every other thread goes first.
// Returns whether `done` came true in time.
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
