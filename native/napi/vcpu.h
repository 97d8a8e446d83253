// A vCPU's descriptor and its run page, for TypeScript.
#pragma once

#include <optional>

#include "napi/descriptor.h"
#include "napi/vcpu_calls.h"

namespace node_kvm {

class Vcpu : public DescriptorWrap<Vcpu> {
 public:
  static Napi::Function Define(Napi::Env env);
  static Napi::Value Wrap(Napi::Env env, VcpuParts parts);
  explicit Vcpu(const Napi::CallbackInfo& info);
  ~Vcpu() override;
  int fd() const { return parts_.page && !parts_.page->ended() ? parts_.page->fd() : -1; }
  void CloseHandle();
  template <typename Call>
  int WithFd(Call call) {
    return fd() < 0 ? -EBADF : parts_.page->WhileIdle(call);
  }

 private:
  void Drop() override { CloseHandle(); }
  Napi::Value UseArea(const Napi::CallbackInfo& info);
  Napi::Value Running(const Napi::CallbackInfo& info);
  Napi::Value StartThread(const Napi::CallbackInfo& info);
  void Kick(const Napi::CallbackInfo& info);
  void AccessMade(const Napi::CallbackInfo& info);
  Napi::Value ReadRunPage(const Napi::CallbackInfo& info);
  Napi::Value WriteRunPage(const Napi::CallbackInfo& info);
  bool Reaches(uint64_t offset, size_t length) const;

  VcpuParts parts_;
  const std::shared_ptr<VcpuCalls> calls_;
  std::optional<uint32_t> number_;
  Napi::ObjectReference area_;  // the area's buffer
};

}  // namespace node_kvm
