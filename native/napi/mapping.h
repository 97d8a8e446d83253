// A handle on a region, for TypeScript.
#pragma once

#include <napi.h>

#include <memory>

#include "core/region.h"
#include "napi/wrapped.h"

namespace node_kvm {

class Mapping : public Wrapped<Mapping> {
 public:
  static Napi::Function Define(Napi::Env env);
  static Napi::Value Map(const Napi::CallbackInfo& info);
  // Null once the handle was released.
  const std::shared_ptr<Region>& region() const { return region_; }
  // Makes one more handle, on a region that another environment mapped.
  static Napi::Object Wrap(Napi::Env env, std::shared_ptr<Region> region);
  explicit Mapping(const Napi::CallbackInfo& info);

 private:
  void Drop() override { region_.reset(); }
  Napi::Value Address(const Napi::CallbackInfo& info);
  Napi::Value Size(const Napi::CallbackInfo& info);
  Napi::Value Kind(const Napi::CallbackInfo& info);
  Napi::Value Memory(const Napi::CallbackInfo& info);
  Napi::Value Slots(const Napi::CallbackInfo& info);
  Napi::Value Buffered(const Napi::CallbackInfo& info);
  Napi::Value Read(const Napi::CallbackInfo& info);
  Napi::Value Write(const Napi::CallbackInfo& info);
  Napi::Value Fill(const Napi::CallbackInfo& info);
  Napi::Value Remap(const Napi::CallbackInfo& info);
  Napi::Value PunchHole(const Napi::CallbackInfo& info);
  Napi::Value Advise(const Napi::CallbackInfo& info);
  Napi::Value Protect(const Napi::CallbackInfo& info);
  Napi::Value Buffer(const Napi::CallbackInfo& info);
  Napi::Value RecordWrites(const Napi::CallbackInfo& info);
  Napi::Value ServeFaults(const Napi::CallbackInfo& info);
  void Release(const Napi::CallbackInfo& info);

  std::shared_ptr<Region> region_;
  Napi::ObjectReference buffer_;
};

}  // namespace node_kvm
