// A vCPU's descriptor and its run page, for TypeScript.
#pragma once

#include "descriptor.h"
#include "vm_state.h"

namespace node_kvm {

struct VcpuParts {
  std::shared_ptr<VmState> vm;  // keeps the guest's memory mapped as long as the vCPU can run
  std::shared_ptr<RunPage> page;
};

class Vcpu : public DescriptorWrap<Vcpu> {
 public:
  static Napi::Function Define(Napi::Env env);
  // runVcpu and ioctlVcpu, the two calls that a VMM makes without end: functions of the module, which V8 compiles to a direct call for
  // all vCPUs alike, and which find theirs by an opaque handle.
  static void DefineHotCalls(Napi::Object exports);
  explicit Vcpu(const Napi::CallbackInfo& info);
  int fd() const { return parts_->page && !parts_->page->ended() ? parts_->page->fd() : -1; }
  void CloseHandle();
  template <typename Call>
  int WithFd(Call call) {
    return fd() < 0 ? -EBADF : parts_->page->WhileIdle(call);
  }

 private:
  Napi::Value Handle(const Napi::CallbackInfo& info);
  Napi::Value Running(const Napi::CallbackInfo& info);
  Napi::Value StartThread(const Napi::CallbackInfo& info);
  void Kick(const Napi::CallbackInfo& info);
  Napi::Value ReadRunPage(const Napi::CallbackInfo& info);
  Napi::Value WriteRunPage(const Napi::CallbackInfo& info);
  bool Reaches(uint64_t offset, size_t length) const;

  std::shared_ptr<VcpuParts> parts_;
};

}  // namespace node_kvm
