#include "vcpu.h"

#include <errno.h>

#include <cstring>

#include "loop_watch.h"
#include "vcpu_runner.h"

namespace node_kvm {

Napi::Function Vcpu::Define(Napi::Env env) {
  auto methods = SharedMethods();
  methods.push_back(InstanceMethod("handle", &Vcpu::Handle));
  methods.push_back(InstanceAccessor("running", &Vcpu::Running, nullptr));
  methods.push_back(InstanceMethod("startThread", &Vcpu::StartThread));
  methods.push_back(InstanceMethod("kick", &Vcpu::Kick));
  methods.push_back(InstanceMethod("readRunPage", &Vcpu::ReadRunPage));
  methods.push_back(InstanceMethod("writeRunPage", &Vcpu::WriteRunPage));
  return DefineClass(env, "Vcpu", methods);
}

Vcpu::Vcpu(const Napi::CallbackInfo& info) : DescriptorWrap(info) {
  if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "not constructible");
  parts_ = std::make_shared<VcpuParts>(std::move(*info[0].As<Napi::External<VcpuParts>>().Data()));
}

void Vcpu::CloseHandle() {
  parts_->page.reset();
  parts_->vm.reset();
}

namespace {

// The vCPU behind the handle in the first argument; null for anything else, and once closed.
HOT_PATH RunPage* PageOf(napi_env env, const HotCall& call) {
  void* held = nullptr;
  if (call.count == 0 || napi_get_value_external(env, call.arguments[0], &held) != napi_ok) return nullptr;
  return (*static_cast<std::shared_ptr<VcpuParts>*>(held))->page.get();
}

HOT_PATH napi_value RunVcpu(napi_env env, napi_callback_info info) {
  const HotCall call(env, info);
  double timeout = -1;
  RunPage* page = PageOf(env, call);
  if (page == nullptr) return Int32(env, -EBADF);
  if (call.count != 3 || napi_get_value_double(env, call.arguments[2], &timeout) != napi_ok) return Int32(env, -EINVAL);
  // Asked for at each run: the caller may have transferred the buffer away meanwhile.
  void* area = nullptr;
  size_t length = 0;
  napi_get_typedarray_info(env, call.arguments[1], nullptr, &length, &area, nullptr, nullptr);
  if (length < RunPage::kAreaSize) return Int32(env, -E2BIG);
  const LoopWatch::Run watched(page);
  return Int32(env, page->Run(static_cast<char*>(area), timeout));
}

HOT_PATH napi_value IoctlVcpu(napi_env env, napi_callback_info info) {
  const HotCall call(env, info);
  RunPage* page = PageOf(env, call);
  if (page == nullptr || page->ended()) return Int32(env, -EBADF);
  return Int32(env, page->WhileIdle([&](int fd) { return CheckedIoctl(fd, env, call.arguments + 1, call.count - 1); }));
}

}  // namespace

void Vcpu::DefineHotCalls(Napi::Object exports) {
  const napi_property_descriptor calls[] = {
      {"runVcpu", nullptr, RunVcpu, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"ioctlVcpu", nullptr, IoctlVcpu, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
  };
  if (napi_define_properties(exports.Env(), exports, 2, calls) != napi_ok) throw Napi::Error::New(exports.Env());
}

Napi::Value Vcpu::Handle(const Napi::CallbackInfo& info) {
  using Hold = std::shared_ptr<VcpuParts>;
  return Napi::External<Hold>::New(info.Env(), new Hold(parts_), [](Napi::Env, Hold* hold) { delete hold; });
}

Napi::Value Vcpu::Running(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), parts_->page && parts_->page->running());
}

Napi::Value Vcpu::StartThread(const Napi::CallbackInfo& info) {
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  return VcpuRunner::Start(info, *parts_);
}

void Vcpu::Kick(const Napi::CallbackInfo&) {
  if (parts_->page) parts_->page->Kick();
}

bool Vcpu::Reaches(uint64_t offset, size_t length) const {
  return parts_->page && length <= parts_->page->size() && offset <= parts_->page->size() - length;
}

Napi::Value Vcpu::ReadRunPage(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const ByteSpan target = BytesOf(info[1]);
  if (!Reaches(offset, target.length)) return Napi::Number::New(info.Env(), -ERANGE);
  memcpy(target.data, parts_->page->page() + offset, target.length);
  return Napi::Number::New(info.Env(), 0);
}

Napi::Value Vcpu::WriteRunPage(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const ByteSpan source = BytesOf(info[1]);
  if (!Reaches(offset, source.length)) return Napi::Number::New(info.Env(), -ERANGE);
  memcpy(parts_->page->page() + offset, source.data, source.length);
  return Napi::Number::New(info.Env(), 0);
}

}  // namespace node_kvm
