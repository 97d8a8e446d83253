// A region's log of this process's own writes, for TypeScript.
#pragma once

#include <napi.h>

#include <memory>
#include <utility>

#include "core/region.h"
#include "napi/wrapped.h"

namespace node_kvm {

class WriteRecorder : public Wrapped<WriteRecorder> {
 public:
  static Napi::Function Define(Napi::Env env);
  static Napi::Value Begin(Napi::Env env, const std::shared_ptr<Region>& region);
  explicit WriteRecorder(const Napi::CallbackInfo& info);

 private:
  using Parts = std::pair<std::unique_ptr<WriteRecording>, uint64_t>;
  void Drop() override { End(); }
  Napi::Value Collect(const Napi::CallbackInfo& info);
  void Mark(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo&) { End(); }
  void End() { recording_.reset(); }

  std::unique_ptr<WriteRecording> recording_;
  uint64_t first_ = 0;
};

}  // namespace node_kvm
