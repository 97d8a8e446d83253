// The two calls that a VMM makes without end: KVM_RUN, and a vCPU's ioctls. They are functions of the module, which V8 compiles to direct
// calls for all vCPUs alike. An exit leaves caches and branch predictors cold, so each call from here into V8 costs time. So callers do not
// use arguments and results, but words in memory that both sides see (npm run bench).
#pragma once

#include <napi.h>

#include <chrono>
#include <memory>
#include <vector>

#include "core/loop_watch.h"
#include "core/run.h"
#include "core/vm_state.h"
#include "napi/descriptor.h"

namespace node_kvm {

struct VcpuParts {
  std::shared_ptr<VmState> vm;  // keeps the guest's memory mapped as long as the vCPU can run
  std::shared_ptr<RunPage> page;
};

// Each environment has one object of this class.
class VcpuCalls {
 public:
  explicit VcpuCalls(Napi::Env env);
  // Defines runVcpu, completeVcpu, ioctlVcpu, and their words. These hold `this` as long as the environment lives.
  void Define(Napi::Object exports);

  // Returns the vCPU's number in the words. The vCPU's runs copy to `area`, a Uint8Array of RunPage::kAreaSize that the caller keeps
  // referenced until Close() or until it sets another area.
  uint32_t Add(const VcpuParts& parts, char* area, napi_ref buffer);
  void Use(uint32_t number, char* area, napi_ref buffer) { entries_[number].area = area, entries_[number].buffer = buffer; }
  // The vCPU's calls fail from now on.
  void Close(uint32_t number) { entries_[number] = {}; }
  // Called once nobody knows the number any more: another vCPU may get it.
  void Remove(uint32_t number);

 private:
  using Clock = std::chrono::steady_clock;
  // lib/abi/vcpu-calls.ts has the same layout.
  struct Words {
    uint32_t vcpu;
    int32_t result;
    double timeout_ms;  // below 0: no limit
    uint32_t request;
  };
  struct Entry {
    std::shared_ptr<RunPage> page;  // null once closed
    char* area = nullptr;
    napi_ref buffer = nullptr;
    std::shared_ptr<VmState> vm;
  };
  static napi_value Run(napi_env env, napi_callback_info info);
  static napi_value Ioctl(napi_env env, napi_callback_info info);
  static napi_value Complete(napi_env env, napi_callback_info info);
  int RunOn(napi_env env, const LoopWatch::Run& watched, RunPage* page, char* area, Clock::time_point end);
  static bool IsLost(napi_env env, const Entry& entry);
  // Returns null if no vCPU has the number.
  const Entry* Asked() const;

  const SharedMemory memory_;
  Words* const words_;  // lies in that memory
  std::vector<Entry> entries_;
  std::vector<uint32_t> free_;
};

}  // namespace node_kvm
