// The trace ring, for TypeScript.
#pragma once

#include <napi.h>

#include <memory>

#include "napi/wrapped.h"
#include "observe/trace_ring.h"

namespace node_kvm {

class Tracer : public Wrapped<Tracer> {
 public:
  static Napi::Function Define(Napi::Env env);
  static Napi::Value Open(const Napi::CallbackInfo& info);
  explicit Tracer(const Napi::CallbackInfo& info);

 private:
  void Drop() override { ring_.reset(); }
  Napi::Value Drain(const Napi::CallbackInfo& info);
  Napi::Value Lost(const Napi::CallbackInfo& info);
  Napi::Value SetRanges(const Napi::CallbackInfo& info);
  Napi::Value Subscribe(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  std::unique_ptr<TraceRing> ring_;
};

}  // namespace node_kvm
