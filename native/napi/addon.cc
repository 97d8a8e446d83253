// Defines the add-on's exports. Each environment has its own constructors.
#include <errno.h>
#include <fcntl.h>
#include <napi.h>
#include <sys/mman.h>

#include "core/loop_watch.h"
#include "napi/descriptor.h"
#include "napi/fault_service.h"
#include "napi/ioeventfd.h"
#include "napi/mapping.h"
#include "napi/tables.h"
#include "napi/tracer.h"
#include "napi/vcpu.h"
#include "napi/vcpu_runner.h"
#include "napi/vm.h"
#include "napi/watcher.h"
#include "napi/write_recorder.h"

namespace node_kvm {
namespace {

Napi::Value Open(const Napi::CallbackInfo& info) {
  if (!info[0].IsString()) throw Napi::TypeError::New(info.Env(), "the path must be a string");
  const std::string path = info[0].As<Napi::String>();
  const int fd = open(path.c_str(), (info[1].ToBoolean() ? O_RDWR : O_RDONLY) | O_CLOEXEC);
  return WrapDescriptor(info.Env(), fd < 0 ? -errno : fd);
}

Napi::Value Tracefs(const Napi::CallbackInfo& info) { return WrapDescriptor(info.Env(), OpenTracefs()); }

Napi::Value KickSignal(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), RunPage::KickSignal()); }

extern "C" int uv_backend_fd(const struct uv_loop_s*);

// A Worker's environment calls this. It acts only once, because Node ends the process when a hook is added twice.
Napi::Value WatchLoop(const Napi::CallbackInfo& info) {
  auto* data = info.Env().GetInstanceData<AddonData>();
  uv_loop_s* loop = nullptr;
  if (data->watches_loop || napi_get_uv_event_loop(info.Env(), &loop) != napi_ok) return info.Env().Undefined();
  data->watches_loop = true;
  LoopWatch::Begin(uv_backend_fd(loop));
  const auto end = [](void*) { LoopWatch::End(); };
  if (napi_add_env_cleanup_hook(info.Env(), end, data) != napi_ok) LoopWatch::End();
  return info.Env().Undefined();
}

Napi::Value OnExhausted(const Napi::CallbackInfo& info) {
  if (!info[0].IsFunction()) throw Napi::TypeError::New(info.Env(), "the argument must be a function");
  info.Env().GetInstanceData<AddonData>()->exhausted = Napi::Persistent(info[0].As<Napi::Function>());
  return info.Env().Undefined();
}

// Whether the collector can work: if it finds no memory to which it can move objects, V8 ends the process.
Napi::Value MayCollect(const Napi::CallbackInfo& info) {
  constexpr size_t kNeeded = 64 << 20;
  void* room = mmap(nullptr, kNeeded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room != MAP_FAILED) munmap(room, kNeeded);
  return Napi::Boolean::New(info.Env(), room != MAP_FAILED);
}

Napi::Value Reclaim(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(WrapsOf(info.Env())->Reclaim(info.Env())));
}

Napi::Object Initialize(Napi::Env env, Napi::Object exports) {
  auto made = std::make_unique<AddonData>();
  AddonData* data = made.get();
  data->descriptor = Napi::Persistent(Descriptor::Define(env));
  data->region = Napi::Persistent(Mapping::Define(env));
  data->vm = Napi::Persistent(Vm::Define(env));
  data->vcpu = Napi::Persistent(Vcpu::Define(env));
  data->runner = Napi::Persistent(VcpuRunner::Define(env));
  data->tracer = Napi::Persistent(Tracer::Define(env));
  data->watcher = Napi::Persistent(Watcher::Define(env));
  data->ioeventfd = Napi::Persistent(IoEventfd::Define(env));
  data->write_recorder = Napi::Persistent(WriteRecorder::Define(env));
  data->fault_service = Napi::Persistent(FaultService::Define(env));
  const auto builtin = [&](const char* name) { return Napi::Persistent(env.Global().Get(name).As<Napi::Function>()); };
  data->array_buffer = builtin("ArrayBuffer");
  data->shared_array_buffer = builtin("SharedArrayBuffer");
  data->uint8_array = builtin("Uint8Array");
  const auto describe = env.Global().Get("Object").As<Napi::Object>().Get("getOwnPropertyDescriptor").As<Napi::Function>();
  const auto resizable =
      describe.Call({data->array_buffer.Value().Get("prototype"), Napi::String::New(env, "resizable")}).As<Napi::Object>();
  data->resizable = Napi::Persistent(resizable.Get("get").As<Napi::Function>());
  env.SetInstanceData(made.release());
  data->vcpu_calls = std::make_shared<VcpuCalls>(env);
  SetFunction<Open>(exports, "open");
  SetFunction<Tracer::Open>(exports, "trace");
  SetFunction<Tracefs>(exports, "openTracefs");
  SetFunction<WatchLoop>(exports, "watchLoop");
  SetFunction<KickSignal>(exports, "kickSignal");
  SetFunction<Vm::Attach>(exports, "attach");
  SetFunction<Watcher::Open>(exports, "watchEventfds");
  SetFunction<Watcher::CreateEventfd>(exports, "eventfd");
  SetFunction<Mapping::Map>(exports, "map");
  SetFunction<OnExhausted>(exports, "onExhausted");
  SetFunction<MayCollect>(exports, "mayCollect");
  SetFunction<Reclaim>(exports, "reclaim");
  data->vcpu_calls->Define(exports);
  DefineTables(exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(node_kvm, Initialize)

}  // namespace node_kvm
