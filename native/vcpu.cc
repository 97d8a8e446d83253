#include "vcpu.h"

#include <errno.h>

#include <cstring>

#include "vcpu_runner.h"

namespace node_kvm {

Napi::Function Vcpu::Define(Napi::Env env) {
  auto methods = SharedMethods();
  methods.push_back(InstanceMethod<&Vcpu::UseArea>("useArea"));
  methods.push_back(InstanceAccessor<&Vcpu::Running>("running"));
  methods.push_back(InstanceMethod<&Vcpu::StartThread>("startThread"));
  methods.push_back(InstanceMethod<&Vcpu::Kick>("kick"));
  methods.push_back(InstanceMethod<&Vcpu::AccessMade>("accessMade"));
  methods.push_back(InstanceMethod<&Vcpu::ReadRunPage>("readRunPage"));
  methods.push_back(InstanceMethod<&Vcpu::WriteRunPage>("writeRunPage"));
  return DefineClass(env, "Vcpu", methods);
}

Vcpu::Vcpu(const Napi::CallbackInfo& info) : DescriptorWrap(info), calls_(info.Env().GetInstanceData<AddonData>()->vcpu_calls) {
  if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "not constructible");
  parts_ = std::move(*info[0].As<Napi::External<VcpuParts>>().Data());
  Costs(2 * kDescriptorCost);
}

Vcpu::~Vcpu() {
  if (number_) calls_->Remove(*number_);
}

void Vcpu::CloseHandle() {
  if (number_) calls_->Close(*number_);
  parts_ = {};
}

Napi::Value Vcpu::UseArea(const Napi::CallbackInfo& info) {
  const ByteSpan area = BytesOf(info[0]);
  if (area.length < RunPage::kAreaSize) throw Napi::RangeError::New(info.Env(), "the area is too small");
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  if (number_)
    calls_->Use(*number_, area.data);
  else
    number_ = calls_->Add(parts_, area.data);
  area_ = Napi::Persistent(info[0].As<Napi::Object>());
  return Napi::Number::New(info.Env(), *number_);
}

Napi::Value Vcpu::Running(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), parts_.page && parts_.page->running()); }

Napi::Value Vcpu::StartThread(const Napi::CallbackInfo& info) {
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  return VcpuRunner::Start(info, parts_);
}

void Vcpu::Kick(const Napi::CallbackInfo&) {
  if (parts_.page) parts_.page->Kick();
}

void Vcpu::AccessMade(const Napi::CallbackInfo& info) {
  if (!parts_.page || !parts_.page->Acquire()) return;
  parts_.page->AccessMade(info[0].ToBoolean());
  parts_.page->Release();
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
