#include "napi/tracer.h"

#include <errno.h>

#include <cstring>

#include "napi/descriptor.h"

namespace node_kvm {
namespace {

constexpr size_t kLeastRing = 4096;
constexpr size_t kMostRing = size_t{1} << 30;

uint64_t Number(const Napi::Object& options, const char* name) { return WholeNumber(options.Get(name), name); }

Napi::Array ArrayOf(const Napi::Value& value) {
  if (!value.IsArray()) throw Napi::TypeError::New(value.Env(), "the argument must be an array");
  return value.As<Napi::Array>();
}

std::string TextOf(const Napi::Value& value) {
  if (!value.IsString()) throw Napi::TypeError::New(value.Env(), "the argument must be a string");
  return value.As<Napi::String>();
}

TraceRequest RequestOf(const Napi::Object& options) {
  TraceRequest request;
  const auto events = ArrayOf(options.Get("events"));
  for (uint32_t index = 0; index < events.Length(); ++index) {
    const auto event = OptionsOf(events.Get(index));
    request.events.push_back({Number(event, "id"), static_cast<uint32_t>(WholeNumber(event.Get("startOffset"), "startOffset", 4096)),
                              static_cast<uint32_t>(WholeNumber(event.Get("endOffset"), "endOffset", 4096)), TextOf(event.Get("filter"))});
  }
  const auto processes = ArrayOf(options.Get("processes"));
  for (uint32_t index = 0; index < processes.Length(); ++index)
    request.processes.insert(static_cast<pid_t>(WholeNumber(processes.Get(index), "process", INT32_MAX)));
  request.children = options.Get("children").ToBoolean();
  request.ring_size = Number(options, "ringSize");
  request.held_limit = Number(options, "heldLimit");
  return request;
}

}  // namespace

Napi::Function Tracer::Define(Napi::Env env) {
  return DefineClass(env, "Tracer",
                     {
                         InstanceMethod<&Tracer::Drain>("drain"),
                         InstanceMethod<&Tracer::Lost>("lost"),
                         InstanceMethod<&Tracer::SetRanges>("setRanges"),
                         InstanceMethod<&Tracer::Subscribe>("subscribe"),
                         InstanceMethod<&Tracer::Close>("close"),
                     });
}

Napi::Value Tracer::Open(const Napi::CallbackInfo& info) {
  const TraceRequest request = RequestOf(OptionsOf(info[0]));
  const bool power = (request.ring_size & (request.ring_size - 1)) == 0;
  if (!power || request.ring_size < kLeastRing || request.ring_size > kMostRing) return Napi::Number::New(info.Env(), -EINVAL);
  std::unique_ptr<TraceRing> ring;
  if (const int error = TraceRing::Open(request, &ring); error != 0) return Napi::Number::New(info.Env(), error);
  return Make(info.Env().GetInstanceData<AddonData>()->tracer, std::move(ring));
}

Tracer::Tracer(const Napi::CallbackInfo& info) : Wrapped(info), ring_(Taken<std::unique_ptr<TraceRing>>(info)) {
  Costs(static_cast<int64_t>(ring_->bytes()));
}

Napi::Value Tracer::Drain(const Napi::CallbackInfo& info) {
  const auto result = Napi::Array::New(info.Env());
  if (!ring_) return result;
  ring_->Drain([&](const std::vector<char>& records) {
    if (records.empty()) return;
    auto copy = Napi::Uint8Array::New(info.Env(), records.size(), NewBuffer(info.Env(), records.size()), 0);
    memcpy(copy.Data(), records.data(), records.size());
    result.Set(result.Length(), copy);
  });
  return result;
}

Napi::Value Tracer::Lost(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), ring_ ? static_cast<double>(ring_->Lost()) : 0);
}

Napi::Value Tracer::SetRanges(const Napi::CallbackInfo& info) {
  std::vector<AddressRange> ranges;
  const bool all = info[0].IsNull();
  if (!all) {
    const auto bounds = ArrayOf(info[0]);
    for (uint32_t index = 0; index + 1 < bounds.Length(); index += 2)
      ranges.push_back({WholeNumber(bounds.Get(index), "start"), WholeNumber(bounds.Get(index + 1), "end")});
  }
  if (ring_) ring_->SetRanges(std::move(ranges), all);
  return info.Env().Undefined();
}

Napi::Value Tracer::Subscribe(const Napi::CallbackInfo& info) { return GiveListener(info.Env(), ring_ ? ring_->Subscribe() : -EBADF); }

void Tracer::Close(const Napi::CallbackInfo&) {
  Drop();
  Costs(0);
}

}  // namespace node_kvm
