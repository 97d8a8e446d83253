// A vCPU's own thread, for TypeScript.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "core/vcpu_thread.h"
#include "napi/vcpu.h"

namespace node_kvm {

class VcpuRunner : public Wrapped<VcpuRunner> {
 public:
  static Napi::Function Define(Napi::Env env);
  // Arguments (number, ranges, notify): the number names the thread; the ranges are [isPort, start, size, ...]; this environment's event
  // loop calls notify when there is something to take.
  static Napi::Value Start(const Napi::CallbackInfo& info, const VcpuParts& parts);
  explicit VcpuRunner(const Napi::CallbackInfo& info);
  ~VcpuRunner() override { End(); }

 private:
  struct Request {
    VcpuParts vcpu;
    int number;
    std::vector<QueuedRange> ranges;
    napi_value notify;
  };
  void Drop() override { End(); }
  Napi::Value Go(const Napi::CallbackInfo& info);
  void CallBack(const Napi::CallbackInfo& info);
  Napi::Value HasResult(const Napi::CallbackInfo& info);
  Napi::Value Take(const Napi::CallbackInfo& info);
  Napi::Value TakeQueued(const Napi::CallbackInfo& info);
  void Ref(const Napi::CallbackInfo& info);
  void Unref(const Napi::CallbackInfo& info);
  void EndNow(const Napi::CallbackInfo& info);
  void End();
  void LetGo();
  static void AtTeardown(void* runner) { static_cast<VcpuRunner*>(runner)->End(); }

  napi_env env_;
  VcpuParts parts_;
  napi_threadsafe_function notify_ = nullptr;
  std::unique_ptr<VcpuThread> thread_;
};

}  // namespace node_kvm
