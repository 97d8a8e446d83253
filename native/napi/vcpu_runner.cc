#include "napi/vcpu_runner.h"

#include <errno.h>

namespace node_kvm {
namespace {

void CallNotify(napi_env env, napi_value callback, void*, void*) {
  // Without an environment the queue is being emptied at teardown.
  if (env == nullptr || callback == nullptr) return;
  napi_value undefined;
  if (napi_get_undefined(env, &undefined) == napi_ok) napi_call_function(env, undefined, callback, 0, nullptr, nullptr);
}

std::vector<QueuedRange> RangesOf(const Napi::Value& value) {
  if (!value.IsArray()) throw Napi::TypeError::New(value.Env(), "the ranges must be an array");
  const auto list = value.As<Napi::Array>();
  std::vector<QueuedRange> ranges;
  for (uint32_t index = 0; index + 2 < list.Length(); index += 3)
    ranges.push_back({list.Get(index).ToBoolean(), WholeNumber(list.Get(index + 1), "start"), WholeNumber(list.Get(index + 2), "size")});
  return ranges;
}

char* AreaOf(const Napi::Value& value) {
  const ByteSpan area = BytesOf(value);
  return area.length < RunPage::kAreaSize ? nullptr : area.data;
}

}  // namespace

Napi::Function VcpuRunner::Define(Napi::Env env) {
  return DefineClass(env, "VcpuRunner",
                     {
                         InstanceMethod<&VcpuRunner::Go>("go"),
                         InstanceMethod<&VcpuRunner::CallBack>("callBack"),
                         InstanceMethod<&VcpuRunner::HasResult>("hasResult"),
                         InstanceMethod<&VcpuRunner::Take>("take"),
                         InstanceMethod<&VcpuRunner::TakeQueued>("takeQueued"),
                         InstanceMethod<&VcpuRunner::Ref>("ref"),
                         InstanceMethod<&VcpuRunner::Unref>("unref"),
                         InstanceMethod<&VcpuRunner::EndNow>("end"),
                     });
}

Napi::Value VcpuRunner::Start(const Napi::CallbackInfo& info, const VcpuParts& parts) {
  Request request{parts, static_cast<int>(WholeNumber(info[0], "number", INT32_MAX)), RangesOf(info[1]), info[2]};
  if (!info[2].IsFunction()) throw Napi::TypeError::New(info.Env(), "the argument must be a function");
  return Make(info.Env().GetInstanceData<AddonData>()->runner, std::move(request));
}

VcpuRunner::VcpuRunner(const Napi::CallbackInfo& info) : Wrapped(info), env_(info.Env()) {
  auto [parts, number, ranges, callback] = Taken<Request>(info);
  parts_ = std::move(parts);
  const auto name = Napi::String::New(info.Env(), "node-kvm vCPU");
  if (napi_create_threadsafe_function(env_, callback, nullptr, name, 0, 1, nullptr, nullptr, nullptr, CallNotify, &notify_) != napi_ok)
    throw Napi::Error::New(info.Env());
  // This hook is added after the function's own hook, and so runs before it: the thread is gone when the function goes.
  napi_add_env_cleanup_hook(env_, AtTeardown, this);
  const auto notify = [notify = notify_] { napi_call_threadsafe_function(notify, nullptr, napi_tsfn_nonblocking); };
  try {
    thread_ = std::make_unique<VcpuThread>(parts_.page, number, std::move(ranges), notify);
  } catch (...) {
    LetGo();
    ThrowOn(env_);
  }
}

void VcpuRunner::LetGo() {
  napi_remove_env_cleanup_hook(env_, AtTeardown, this);
  napi_release_threadsafe_function(notify_, napi_tsfn_abort);
  parts_ = {};
}

void VcpuRunner::End() {
  if (thread_ == nullptr) return;
  thread_.reset();
  LetGo();
}

Napi::Value VcpuRunner::Go(const Napi::CallbackInfo& info) {
  const char* area = AreaOf(info[0]);
  return Napi::Boolean::New(info.Env(), area != nullptr && thread_ != nullptr && thread_->Go(area));
}

void VcpuRunner::CallBack(const Napi::CallbackInfo&) {
  if (thread_ != nullptr) thread_->CallBack();
}

Napi::Value VcpuRunner::HasResult(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), thread_ != nullptr && thread_->HasResult());
}

Napi::Value VcpuRunner::Take(const Napi::CallbackInfo& info) {
  char* area = AreaOf(info[0]);
  int result = 0;
  if (area == nullptr || thread_ == nullptr || !thread_->Take(area, &result)) return info.Env().Null();
  return Napi::Number::New(info.Env(), result);
}

Napi::Value VcpuRunner::TakeQueued(const Napi::CallbackInfo& info) {
  const std::vector<char> queued = thread_ == nullptr ? std::vector<char>() : thread_->TakeQueued();
  auto bytes = Napi::Uint8Array::New(info.Env(), queued.size());
  if (!queued.empty()) memcpy(bytes.Data(), queued.data(), queued.size());
  return bytes;
}

void VcpuRunner::Ref(const Napi::CallbackInfo&) {
  if (thread_ != nullptr) napi_ref_threadsafe_function(env_, notify_);
}
void VcpuRunner::Unref(const Napi::CallbackInfo&) {
  if (thread_ != nullptr) napi_unref_threadsafe_function(env_, notify_);
}
void VcpuRunner::EndNow(const Napi::CallbackInfo&) { End(); }

}  // namespace node_kvm
