#include "napi/vcpu.h"

#include <errno.h>

#include <cstddef>
#include <cstring>

#include "napi/vcpu_runner.h"

namespace node_kvm {
namespace {

// The parts of the run page that callers may write: request_interrupt_window, and the bytes behind the exit's union, which are the synced
// registers with their masks. The rest belongs to the kernel and to this add-on (RunPage, CoalescedRing).
bool IsForCallers(uint64_t offset, size_t length) {
  const bool is_window = offset == offsetof(kvm_run, request_interrupt_window) && length == sizeof(kvm_run::request_interrupt_window);
  return is_window || (offset >= RunPage::kHead && offset <= sizeof(kvm_run) && length <= sizeof(kvm_run) - offset);
}

}  // namespace

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

Napi::Value Vcpu::Wrap(Napi::Env env, VcpuParts parts) { return Make(env.GetInstanceData<AddonData>()->vcpu, std::move(parts)); }

Vcpu::Vcpu(const Napi::CallbackInfo& info)
    : DescriptorWrap(info), parts_(Taken<VcpuParts>(info)), calls_(info.Env().GetInstanceData<AddonData>()->vcpu_calls) {
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
  napi_value buffer;
  napi_get_typedarray_info(info.Env(), info[0], nullptr, nullptr, nullptr, &buffer, nullptr);
  if (area.length < RunPage::kAreaSize || IsResizable({info.Env(), buffer}))
    throw Napi::RangeError::New(info.Env(), "the area is too small, or its buffer is resizable");
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  auto kept = Napi::Persistent(Napi::Object(info.Env(), buffer));
  if (number_)
    calls_->Use(*number_, area.data, kept);
  else
    number_ = calls_->Add(parts_, area.data, kept);
  area_ = std::move(kept);
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
  if (!Reaches(offset, source.length) || !IsForCallers(offset, source.length)) return Napi::Number::New(info.Env(), -ERANGE);
  memcpy(parts_.page->page() + offset, source.data, source.length);
  return Napi::Number::New(info.Env(), 0);
}

}  // namespace node_kvm
