#include "vcpu.h"

#include <errno.h>

#include <cstring>

namespace node_kvm {

Napi::Function Vcpu::Define(Napi::Env env) {
  auto methods = SharedMethods();
  methods.push_back(InstanceMethod<&Vcpu::Run>("run"));
  methods.push_back(InstanceMethod("kick", &Vcpu::Kick));
  methods.push_back(InstanceMethod("readRunPage", &Vcpu::ReadRunPage));
  methods.push_back(InstanceMethod("writeRunPage", &Vcpu::WriteRunPage));
  return DefineClass(env, "Vcpu", methods);
}

Vcpu::Vcpu(const Napi::CallbackInfo& info) : DescriptorWrap(info) {
  if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "not constructible");
  parts_ = std::move(*info[0].As<Napi::External<VcpuParts>>().Data());
}

void Vcpu::CloseHandle() {
  parts_.page.reset();
  parts_.vm.reset();
}

Napi::Value Vcpu::Run(const Napi::CallbackInfo& info) {
  const ByteSpan area = BytesOf(info[0]);
  double timeout = -1;
  napi_get_value_double(info.Env(), info[1], &timeout);
  if (!parts_.page) return Napi::Number::New(info.Env(), -EBADF);
  // Asked for at each run: the caller may have transferred the buffer away meanwhile.
  if (area.length < RunPage::kAreaSize) return Napi::Number::New(info.Env(), -E2BIG);
  return Napi::Number::New(info.Env(), parts_.page->Run(area.data, timeout));
}

void Vcpu::Kick(const Napi::CallbackInfo&) {
  if (parts_.page) parts_.page->Kick();
}

bool Vcpu::Reaches(uint64_t offset, size_t length) const {
  return parts_.page && length <= parts_.page->size() && offset <= parts_.page->size() - length;
}

Napi::Value Vcpu::ReadRunPage(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const ByteSpan target = BytesOf(info[1]);
  if (!Reaches(offset, target.length)) return Napi::Number::New(info.Env(), -ERANGE);
  memcpy(target.data, parts_.page->page() + offset, target.length);
  return Napi::Number::New(info.Env(), 0);
}

Napi::Value Vcpu::WriteRunPage(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const ByteSpan source = BytesOf(info[1]);
  if (!Reaches(offset, source.length)) return Napi::Number::New(info.Env(), -ERANGE);
  memcpy(parts_.page->page() + offset, source.data, source.length);
  return Napi::Number::New(info.Env(), 0);
}

}  // namespace node_kvm
