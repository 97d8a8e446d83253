#include "napi/write_recorder.h"

#include <errno.h>

#include <tuple>

#include "napi/descriptor.h"

namespace node_kvm {

Napi::Function WriteRecorder::Define(Napi::Env env) {
  return DefineClass(env, "WriteRecorder",
                     {
                         InstanceMethod<&WriteRecorder::Collect>("collect"),
                         InstanceMethod<&WriteRecorder::Mark>("mark"),
                         InstanceMethod<&WriteRecorder::Close>("close"),
                     });
}

// The recording is made here, where exceptions are guarded, and then handed over.
Napi::Value WriteRecorder::Begin(Napi::Env env, const std::shared_ptr<Region>& region) {
  const uint64_t first = region->memory_offset() / 4096;
  auto recording = std::make_unique<WriteRecording>(region->writes(), first, region->size() / 4096);
  return Make(env.GetInstanceData<AddonData>()->write_recorder, Parts(std::move(recording), first));
}

WriteRecorder::WriteRecorder(const Napi::CallbackInfo& info) : Wrapped(info) { std::tie(recording_, first_) = Taken<Parts>(info); }

Napi::Value WriteRecorder::Collect(const Napi::CallbackInfo& info) {
  const ByteSpan target = BytesOf(info[0]);
  if (!recording_) return Napi::Number::New(info.Env(), -EBADF);
  if (target.length < recording_->log().bytes()) return Napi::Number::New(info.Env(), -E2BIG);
  recording_->log().Collect(target.data);
  return Napi::Number::New(info.Env(), 0);
}

// Marks writes that are not calls of the library: those through a live buffer.
void WriteRecorder::Mark(const Napi::CallbackInfo& info) {
  const uint64_t first = WholeNumber(info[0], "first");
  const uint64_t last = WholeNumber(info[1], "last");
  if (recording_) recording_->log().Mark(first_ + first, first_ + last);
}

}  // namespace node_kvm
