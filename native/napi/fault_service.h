// The faults of a region, and their answers, for TypeScript.
#pragma once

#include <napi.h>

#include <memory>

#include "core/region.h"
#include "napi/wrapped.h"

namespace node_kvm {

class FaultService : public Wrapped<FaultService> {
 public:
  static Napi::Function Define(Napi::Env env);
  // { minor, fd, offset, content }: a file, or bytes, from which a native thread serves; neither, for faults answered by serve(). The
  // region is held: a getter of the options may release its handle.
  static Napi::Value Begin(const Napi::CallbackInfo& info, std::shared_ptr<Region> region);
  explicit FaultService(const Napi::CallbackInfo& info);
  // Without close(): its environment ended, or nobody holds it. What native code serves is served on; what nobody serves fails.
  ~FaultService() override { Drop(); }

 private:
  void Drop() override;
  // Let go in this order: the faults end before the region is unmapped.
  struct Parts {
    std::shared_ptr<UserFaults> faults;
    std::shared_ptr<Region> region;
  };
  Napi::Value Take(const Napi::CallbackInfo& info);
  Napi::Value Serve(const Napi::CallbackInfo& info);
  Napi::Value Fail(const Napi::CallbackInfo& info);
  Napi::Value Missing(const Napi::CallbackInfo& info);
  Napi::Value MakePresent(const Napi::CallbackInfo& info);
  void Abandon(const Napi::CallbackInfo& info);
  Napi::Value Subscribe(const Napi::CallbackInfo& info);
  Napi::Value Served(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  Parts parts_;
};

}  // namespace node_kvm
