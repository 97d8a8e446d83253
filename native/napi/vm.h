// A VM, for TypeScript.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "core/coalesced_ring.h"
#include "core/vm_state.h"
#include "napi/descriptor.h"

namespace node_kvm {

class Vm : public DescriptorWrap<Vm> {
 public:
  static Napi::Function Define(Napi::Env env);
  // Returns the VM for which share() made the token, or a negative errno. A token is taken once.
  static Napi::Value Attach(const Napi::CallbackInfo& info);
  static Napi::Value Wrap(Napi::Env env, std::shared_ptr<VmState> state, bool created_here);
  explicit Vm(const Napi::CallbackInfo& info);
  ~Vm() override { LetGo(); }
  int fd() const { return state_ && !state_->ended() ? state_->fd() : -1; }
  // The environment that created the VM ends it for all; other environments only let go of it.
  void CloseHandle();

 private:
  using Parts = std::pair<std::shared_ptr<VmState>, bool>;
  void Drop() override { LetGo(); }
  void LetGo();
  Napi::Value RunPageSize(const Napi::CallbackInfo& info);
  Napi::Value MemslotWords(const Napi::CallbackInfo& info);  // this and the next six are in vm_memslots.cc
  void ChangeMemslot(Napi::Env env, napi_value region);
  Napi::Value ChangeMemslots(const Napi::CallbackInfo& info);
  Napi::Value Generation(const Napi::CallbackInfo& info);
  Napi::Value MemslotsSince(const Napi::CallbackInfo& info);
  Napi::Value GetDirtyLog(const Napi::CallbackInfo& info);
  Napi::Value ClearDirtyLog(const Napi::CallbackInfo& info);
  Napi::Value EnableDirtyRing(const Napi::CallbackInfo& info);
  Napi::Value HarvestDirtyRings(const Napi::CallbackInfo& info);
  Napi::Value AssignIoEventfd(const Napi::CallbackInfo& info);
  Napi::Value Coalesce(const Napi::CallbackInfo& info);
  Napi::Value Uncoalesce(const Napi::CallbackInfo& info);
  Napi::Value DrainCoalesced(const Napi::CallbackInfo& info);
  Napi::Value CreateGuestMemfd(const Napi::CallbackInfo& info);
  Napi::Value CreateVcpu(const Napi::CallbackInfo& info);
  Napi::Value FindVcpu(const Napi::CallbackInfo& info);
  Napi::Value Share(const Napi::CallbackInfo& info);

  std::shared_ptr<VmState> state_;
  bool created_here_ = false;
  struct Words;
  std::optional<SharedMemory> words_memory_;
  Words* words_ = nullptr;  // lies in that memory
};

}  // namespace node_kvm
