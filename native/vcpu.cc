#include "vcpu.h"

#include <errno.h>

#include <algorithm>
#include <chrono>
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

// What the calls below know of a vCPU. Its area is kept by the object in TypeScript that keeps the handle.
struct VcpuHandle {
  std::shared_ptr<VcpuParts> parts;
  char* area;
};

// Null once closed, as without a handle.
RunPage* PageOf(const VcpuHandle* handle) { return handle == nullptr ? nullptr : handle->parts->page.get(); }

// Of the first argument; null for anything else.
const VcpuHandle* HandleOf(napi_env env, const HotCall& call) {
  void* held = nullptr;
  if (call.count == 0 || napi_get_value_external(env, call.arguments[0], &held) != napi_ok) return nullptr;
  return static_cast<const VcpuHandle*>(held);
}

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::duration<double, std::milli>;

// V8 looks whether worker.terminate() was called when a function is entered; at the end of a loop's round only once in thousands. False
// when it was.
bool GoesOn(napi_env env) {
  // Of its own: the run may last for days, and come here four times a second.
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return false;
  napi_value script, result;
  const bool goes_on = napi_create_string_latin1(env, "0", 1, &script) == napi_ok && napi_run_script(env, script, &result) == napi_ok;
  napi_close_handle_scope(env, scope);
  return goes_on;
}

napi_value RunVcpu(napi_env env, napi_callback_info info) {
  const HotCall call(env, info);
  double timeout = -1;
  const VcpuHandle* handle = HandleOf(env, call);
  RunPage* page = PageOf(handle);
  if (page == nullptr) return Int32(env, -EBADF);
  if (call.count > 1 && napi_get_value_double(env, call.arguments[1], &timeout) != napi_ok) return Int32(env, -EINVAL);
  const LoopWatch::Run watched(page);
  const auto end = timeout < 0 ? Clock::time_point() : Clock::now() + std::chrono::duration_cast<Clock::duration>(Milliseconds(timeout));
  int result = page->Run(handle->area, timeout);
  // A Worker's event loop has something to do, and only its end cannot wait. This may come late, to whoever runs the vCPU next.
  while (result == -ERESTART) {
    if (!GoesOn(env)) return nullptr;
    result = page->Run(handle->area, timeout < 0 ? -1 : std::max(0.0, Milliseconds(end - Clock::now()).count()));
  }
  return Int32(env, result);
}

napi_value IoctlVcpu(napi_env env, napi_callback_info info) {
  const HotCall call(env, info);
  RunPage* page = PageOf(HandleOf(env, call));
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
  const ByteSpan area = BytesOf(info[0]);
  if (area.length < RunPage::kAreaSize) throw Napi::RangeError::New(info.Env(), "the area is too small");
  return Napi::External<VcpuHandle>::New(info.Env(), new VcpuHandle{parts_, area.data}, [](Napi::Env, VcpuHandle* gone) { delete gone; });
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
