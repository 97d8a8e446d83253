// The eventfd watcher, for TypeScript.
#pragma once

#include <napi.h>

#include <memory>

#include "core/eventfds.h"
#include "napi/wrapped.h"

namespace node_kvm {

class Watcher : public Wrapped<Watcher> {
 public:
  static Napi::Function Define(Napi::Env env);
  static Napi::Value Open(const Napi::CallbackInfo& info);
  // Makes an eventfd (eventfd(2)). It is nonblocking, so that a full counter cannot hold up the event loop.
  static Napi::Value CreateEventfd(const Napi::CallbackInfo& info);
  explicit Watcher(const Napi::CallbackInfo& info);

 private:
  void Drop() override { watcher_.reset(); }
  Napi::Value Add(const Napi::CallbackInfo& info);
  void Remove(const Napi::CallbackInfo& info);
  Napi::Value Take(const Napi::CallbackInfo& info);
  Napi::Value Subscribe(const Napi::CallbackInfo& info);

  std::unique_ptr<EventfdWatcher> watcher_;
};

}  // namespace node_kvm
