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
  // The options are { minor, fd, offset, content }. With a file or bytes, a native thread serves the faults from them; with neither, the
  // caller answers them by serve(). This keeps a reference to the region, because a getter of the options may release its handle.
  static Napi::Value Begin(const Napi::CallbackInfo& info, std::shared_ptr<Region> region);
  explicit FaultService(const Napi::CallbackInfo& info);
  // Runs without close() when the environment ended, or nobody holds the object. A native thread goes on serving; other faults fail.
  ~FaultService() override { Drop(); }

 private:
  void Drop() override;
  // The members are released in this order: the faults end before the region is unmapped.
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
