#include "napi/watcher.h"

#include <errno.h>
#include <sys/eventfd.h>

#include "napi/descriptor.h"

namespace node_kvm {

Napi::Function Watcher::Define(Napi::Env env) {
  return DefineClass(env, "Watcher",
                     {
                         InstanceMethod<&Watcher::Add>("add"),
                         InstanceMethod<&Watcher::Remove>("remove"),
                         InstanceMethod<&Watcher::Take>("take"),
                         InstanceMethod<&Watcher::Subscribe>("subscribe"),
                     });
}

Napi::Value Watcher::Open(const Napi::CallbackInfo& info) {
  std::unique_ptr<EventfdWatcher> watcher;
  if (const int error = EventfdWatcher::Open(&watcher); error != 0) return Napi::Number::New(info.Env(), error);
  return Make(info.Env().GetInstanceData<AddonData>()->watcher, std::move(watcher));
}

Napi::Value Watcher::CreateEventfd(const Napi::CallbackInfo& info) {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return WrapDescriptor(info.Env(), fd < 0 ? -errno : fd);
}

Watcher::Watcher(const Napi::CallbackInfo& info) : Wrapped(info), watcher_(Taken<std::unique_ptr<EventfdWatcher>>(info)) {}

Napi::Value Watcher::Add(const Napi::CallbackInfo& info) {
  const auto key = static_cast<uint32_t>(WholeNumber(info[0], "key", UINT32_MAX));
  const auto fd = static_cast<int>(WholeNumber(info[1], "fd", INT32_MAX));
  return Napi::Number::New(info.Env(), watcher_->Add(key, fd));
}

void Watcher::Remove(const Napi::CallbackInfo& info) { watcher_->Remove(static_cast<uint32_t>(WholeNumber(info[0], "key", UINT32_MAX))); }

// Returns pairs: the key and the count.
Napi::Value Watcher::Take(const Napi::CallbackInfo& info) {
  const auto counts = watcher_->Take();
  auto pairs = Napi::Float64Array::New(info.Env(), counts.size() * 2);
  for (size_t index = 0; index < counts.size(); ++index) {
    pairs[index * 2] = counts[index].key;
    pairs[index * 2 + 1] = static_cast<double>(counts[index].count);
  }
  return pairs;
}

Napi::Value Watcher::Subscribe(const Napi::CallbackInfo& info) { return GiveListener(info.Env(), watcher_->TakeListener()); }

}  // namespace node_kvm
