// A registration of KVM_IOEVENTFD (api.rst 4.59), for TypeScript. It is taken back when it is closed, and also when its environment ends
// while other environments keep the VM: their guest's writes would vanish into an eventfd that nobody watches.
#pragma once

#include <napi.h>

#include <memory>

#include "core/kvm_abi.h"
#include "core/owned_fd.h"
#include "core/vm_state.h"
#include "napi/wrapped.h"

namespace node_kvm {

class IoEventfd : public Wrapped<IoEventfd> {
 public:
  static Napi::Function Define(Napi::Env env);
  // `request` is a kvm_ioeventfd whose `fd` the caller owns; the fd is duplicated. Returns a negative errno on failure.
  static Napi::Value Assign(Napi::Env env, const std::shared_ptr<VmState>& vm, const Napi::Value& request);
  explicit IoEventfd(const Napi::CallbackInfo& info);
  ~IoEventfd() override { LetGo(); }

 private:
  struct Parts {
    std::weak_ptr<VmState> vm;
    kvm_ioeventfd request{};
    OwnedFd eventfd;
  };
  void Drop() override { LetGo(); }
  Napi::Value Fd(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), parts_.eventfd.get()); }
  void Close(const Napi::CallbackInfo&) { LetGo(); }
  void LetGo();

  Parts parts_;
};

}  // namespace node_kvm
