#include "napi/vcpu_calls.h"

#include <errno.h>

#include <algorithm>
#include <cstring>

#include "core/run_inline.h"
#include "napi/descriptor.h"

namespace node_kvm {
namespace {

using Milliseconds = std::chrono::duration<double, std::milli>;
// The longest timeout that run() takes is some 24 days, far below the limit of a timespec of the clock.
constexpr double kMostMilliseconds = 0x1p31;

// V8 checks whether worker.terminate() was called when a function is entered, but at the end of a loop's round only once in thousands of
// rounds. Returns false when it was called.
bool GoesOn(napi_env env) {
  // This needs a scope of its own: the run may last for days, and come here four times a second.
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return false;
  napi_value script, result;
  const bool goes_on = napi_create_string_latin1(env, "0", 1, &script) == napi_ok && napi_run_script(env, script, &result) == napi_ok;
  napi_close_handle_scope(env, scope);
  return goes_on;
}

VcpuCalls* CallsOf(napi_env env, napi_callback_info info, size_t* count = nullptr, napi_value* arguments = nullptr) {
  void* data = nullptr;
  napi_get_cb_info(env, info, count, arguments, nullptr, &data);
  return static_cast<VcpuCalls*>(data);
}

}  // namespace

VcpuCalls::VcpuCalls(Napi::Env env) : memory_(env, sizeof(Words)), words_(reinterpret_cast<Words*>(memory_.data())) {}

void VcpuCalls::Define(Napi::Object exports) {
  const napi_property_descriptor calls[] = {
      {"runVcpu", nullptr, Run, nullptr, nullptr, nullptr, napi_enumerable, this},
      {"completeVcpu", nullptr, Complete, nullptr, nullptr, nullptr, napi_enumerable, this},
      {"ioctlVcpu", nullptr, Ioctl, nullptr, nullptr, nullptr, napi_enumerable, this},
      {"vcpuWords", nullptr, nullptr, nullptr, nullptr, memory_.Value(), napi_enumerable, nullptr},
  };
  if (napi_define_properties(exports.Env(), exports, 4, calls) != napi_ok) throw Napi::Error::New(exports.Env());
}

uint32_t VcpuCalls::Add(const VcpuParts& parts, char* area, napi_ref buffer) {
  if (free_.empty()) {
    // Room for every number comes first: every free number must fit in free_ even when memory runs out later, and Remove() must not fail.
    if (free_.capacity() <= entries_.size()) free_.reserve(2 * entries_.size() + 1);
    entries_.emplace_back();
    free_.push_back(static_cast<uint32_t>(entries_.size() - 1));
  }
  const uint32_t number = free_.back();
  free_.pop_back();
  entries_[number] = {parts.page, area, buffer, parts.vm};
  return number;
}

void VcpuCalls::Remove(uint32_t number) {
  Close(number);
  free_.push_back(number);
}

inline const VcpuCalls::Entry* VcpuCalls::Asked() const {
  const uint32_t number = words_->vcpu;
  return number < entries_.size() && entries_[number].page != nullptr ? &entries_[number] : nullptr;
}

// Whether the area's buffer was transferred away. This is checked before each run, since Node does not report a transfer.
inline bool VcpuCalls::IsLost(napi_env env, const Entry& entry) {
  napi_value buffer;
  bool detached;
  return napi_get_reference_value(env, entry.buffer, &buffer) != napi_ok ||
         napi_is_detached_arraybuffer(env, buffer, &detached) != napi_ok || detached;
}

// Continues a run that a nudge ended: a Worker's event loop has something to do, and only the Worker's end cannot wait. The nudge may come
// late, and reach the thread that runs the vCPU next.
[[gnu::noinline]] int VcpuCalls::RunOn(napi_env env, const LoopWatch::Run& watched, RunPage* page, char* area, Clock::time_point end) {
  int result = -ERESTART;
  while (result == -ERESTART && GoesOn(env)) {
    watched.Again(page);
    result = page->Run(area, words_->timeout_ms < 0 ? -1 : std::max(0.0, Milliseconds(end - Clock::now()).count()));
  }
  return result;
}

napi_value VcpuCalls::Run(napi_env env, napi_callback_info info) {
  VcpuCalls* const calls = CallsOf(env, info);
  const Entry* const entry = calls->Asked();
  if (entry == nullptr) {
    calls->words_->result = -EBADF;
    return nullptr;
  }
  RunPage* const page = entry->page.get();
  char* const area = entry->area;
  const double timeout = calls->words_->timeout_ms;
  // The comparison is false for NaN as well, so NaN is refused.
  if (!(timeout <= kMostMilliseconds) || IsLost(env, *entry)) {
    calls->words_->result = -EINVAL;
    return nullptr;
  }
  const LoopWatch::Run watched(page);
  const auto end = timeout < 0 ? Clock::time_point() : Clock::now() + std::chrono::duration_cast<Clock::duration>(Milliseconds(timeout));
  int result = page->Run(area, timeout);
  if (result == -ERESTART) result = calls->RunOn(env, watched, page, area, end);
  calls->words_->result = result;
  return nullptr;
}

napi_value VcpuCalls::Complete(napi_env env, napi_callback_info info) {
  VcpuCalls* const calls = CallsOf(env, info);
  const Entry* const entry = calls->Asked();
  if (entry == nullptr) {
    calls->words_->result = -EBADF;
    return nullptr;
  }
  if (IsLost(env, *entry)) {
    calls->words_->result = -EINVAL;
    return nullptr;
  }
  RunPage* const page = entry->page.get();
  const LoopWatch::Run watched(page);
  calls->words_->result = page->Complete(entry->area);
  return nullptr;
}

napi_value VcpuCalls::Ioctl(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  VcpuCalls* const calls = CallsOf(env, info, &count, &argument);
  const Entry* const entry = calls->Asked();
  if (entry == nullptr || entry->page->ended()) {
    calls->words_->result = -EBADF;
    return nullptr;
  }
  const unsigned long request = calls->words_->request;
  calls->words_->result = entry->page->WhileIdle([&](int fd) { return CheckedIoctl(fd, env, request, argument); });
  return nullptr;
}

}  // namespace node_kvm
