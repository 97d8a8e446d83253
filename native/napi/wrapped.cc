#include "napi/wrapped.h"

#include <errno.h>

#include <atomic>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include "napi/descriptor.h"

namespace node_kvm {
namespace {

// `what` names the resource that ran out; TypeScript makes the error (lib/abi/exhausted.ts).
[[noreturn]] void ThrowExhausted(Napi::Env env, const char* what) {
  const AddonData* data = env.GetInstanceData<AddonData>();
  if (data == nullptr || data->exhausted.IsEmpty()) throw Napi::Error::New(env, std::string("node-kvm: out of ") + what);
  throw Napi::Error(env, data->exhausted.Call({Napi::String::New(env, what)}));
}

}  // namespace

void ThrowOn(Napi::Env env) {
  try {
    throw;
  } catch (const Napi::Error& error) {
    // An exception of a constructor comes through node-addon-api, which keeps only its message.
    if (error.Message() == std::bad_alloc().what()) ThrowExhausted(env, "memory");
    throw;
  } catch (const std::bad_alloc&) {
    ThrowExhausted(env, "memory");
  } catch (const std::length_error&) {
    ThrowExhausted(env, "memory");
  } catch (const std::system_error&) {
    // Only std::thread throws this here (pthread_create(3): EAGAIN).
    ThrowExhausted(env, "threads");
  }
}

size_t Wraps::Reclaim(Napi::Env env) {
  size_t lost = 0;
  for (Member* member = first_; member != nullptr; member = member->next_) {
    const Napi::HandleScope scope(env);
    if (!member->IsLost()) continue;
    member->Reclaim();
    ++lost;
  }
  return lost;
}

void Wraps::AfterCollection(Napi::Env env) {
  if (!sentinel_.IsEmpty() && !sentinel_.Value().IsEmpty()) return;
  sentinel_ = Napi::Weak(Napi::Object::New(env));
  Reclaim(env);
}

napi_type_tag NewTypeTag() {
  static std::atomic<uint64_t> last{0};
  return {reinterpret_cast<uintptr_t>(&last), ++last};
}

std::shared_ptr<Wraps> WrapsOf(Napi::Env env) { return env.GetInstanceData<AddonData>()->wraps; }

}  // namespace node_kvm
