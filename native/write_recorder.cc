#include "write_recorder.h"

#include <errno.h>

#include "descriptor.h"

namespace node_kvm {

Napi::Function WriteRecorder::Define(Napi::Env env) {
  return DefineClass(env, "WriteRecorder",
                     {
                         InstanceMethod<&WriteRecorder::Collect>("collect"),
                         InstanceMethod<&WriteRecorder::Mark>("mark"),
                         InstanceMethod<&WriteRecorder::Close>("close"),
                     });
}

Napi::Value WriteRecorder::Of(Napi::Env env, const std::shared_ptr<Region>& region) {
  auto hold = region;
  return env.GetInstanceData<AddonData>()->write_recorder.New({Napi::External<std::shared_ptr<Region>>::New(env, &hold)});
}

WriteRecorder::WriteRecorder(const Napi::CallbackInfo& info) : Wrapped(info) {
  if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "not constructible");
  region_ = *info[0].As<Napi::External<std::shared_ptr<Region>>>().Data();
  log_ = std::make_shared<WriteLog>((region_->size() + 4095) / 4096);
  region_->write_logs().Add(log_);
}

void WriteRecorder::End() {
  if (region_) region_->write_logs().Remove(log_.get());
  region_.reset();
  log_.reset();
}

Napi::Value WriteRecorder::Collect(const Napi::CallbackInfo& info) {
  const ByteSpan target = BytesOf(info[0]);
  if (!log_) return Napi::Number::New(info.Env(), -EBADF);
  if (target.length < log_->bytes()) return Napi::Number::New(info.Env(), -E2BIG);
  log_->Collect(target.data);
  return Napi::Number::New(info.Env(), 0);
}

// For writes that no call of the library makes: through a live buffer.
void WriteRecorder::Mark(const Napi::CallbackInfo& info) {
  const uint64_t first = WholeNumber(info[0], "first");
  const uint64_t last = WholeNumber(info[1], "last");
  if (log_) log_->Mark(first, last);
}

}  // namespace node_kvm
