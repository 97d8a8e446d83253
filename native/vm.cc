#include "vm.h"

#include <errno.h>
#include <linux/kvm.h>

#include <cstring>
#include <random>

#include "map_budget.h"
#include "mapping.h"
#include "run.h"
#include "vcpu.h"

namespace node_kvm {
namespace {

constexpr unsigned kCreateGuestMemfd = 0xd4;

// VMs that were shared and not attached yet. A token keeps no VM alive: whoever shares holds it until it is attached.
class Tokens {
 public:
  uint64_t Add(const std::shared_ptr<VmState>& vm) {
    const std::lock_guard lock(mutex_);
    std::erase_if(tokens_, [](const auto& token) { return token.second.expired(); });
    uint64_t token;
    do token = random_();
    while (!tokens_.try_emplace(token, vm).second);
    return token;
  }
  int Take(uint64_t token, std::shared_ptr<VmState>* vm) {
    const std::lock_guard lock(mutex_);
    const auto found = tokens_.find(token);
    if (found == tokens_.end()) return -ENOENT;
    *vm = found->second.lock();
    tokens_.erase(found);
    return *vm == nullptr || (*vm)->ended() ? -EBADF : 0;
  }
  // Never destroyed: a Worker may be in it when the process ends.
  static Tokens& OfProcess() {
    static auto* tokens = new Tokens;
    return *tokens;
  }

 private:
  std::mutex mutex_;
  std::mt19937_64 random_{std::random_device{}()};
  std::map<uint64_t, std::weak_ptr<VmState>> tokens_;
};

VmState::Change ChangeOf(const Napi::Value& request, const Napi::Value& argument, const Napi::Value& region, const Napi::Value& offset) {
  const ByteSpan bytes = BytesOf(argument);
  VmState::Change change{static_cast<unsigned long>(WholeNumber(request, "request", UINT32_MAX)),
                         {bytes.data, bytes.data + bytes.length},
                         region.IsNull() ? nullptr : Mapping::RegionOf(region),
                         WholeNumber(offset, "offset")};
  // A mapping whose handle has let go.
  if (change.region == nullptr && !region.IsNull()) change.request = 0;
  return change;
}

Napi::Value VcpuObject(Napi::Env env, VcpuParts parts) {
  return env.GetInstanceData<AddonData>()->vcpu.New({Napi::External<VcpuParts>::New(env, &parts)});
}

}  // namespace

Napi::Function Vm::Define(Napi::Env env) {
  auto methods = SharedMethods();
  methods.push_back(InstanceMethod<&Vm::SetMemoryRegion>("setMemoryRegion"));
  methods.push_back(InstanceMethod<&Vm::SetMemoryRegions>("setMemoryRegions"));
  methods.push_back(InstanceAccessor<&Vm::RunPageSize>("runPageSize"));
  methods.push_back(InstanceAccessor<&Vm::Generation>("generation"));
  methods.push_back(InstanceMethod<&Vm::Memslots>("memslots"));
  methods.push_back(InstanceMethod<&Vm::TakeSlotId>("takeSlotId"));
  methods.push_back(InstanceMethod<&Vm::ReturnSlotId>("returnSlotId"));
  methods.push_back(InstanceMethod<&Vm::GetDirtyLog>("getDirtyLog"));
  methods.push_back(InstanceMethod<&Vm::ClearDirtyLog>("clearDirtyLog"));
  methods.push_back(InstanceMethod<&Vm::EnableDirtyRing>("enableDirtyRing"));
  methods.push_back(InstanceMethod<&Vm::HarvestDirtyRings>("harvestDirtyRings"));
  methods.push_back(InstanceMethod<&Vm::DrainCoalesced>("drainCoalesced"));
  methods.push_back(InstanceMethod<&Vm::CreateGuestMemfd>("createGuestMemfd"));
  methods.push_back(InstanceMethod<&Vm::CreateVcpu>("createVcpu"));
  methods.push_back(InstanceMethod<&Vm::FindVcpu>("findVcpu"));
  methods.push_back(InstanceMethod<&Vm::Share>("share"));
  return DefineClass(env, "Vm", methods);
}

Vm::Vm(const Napi::CallbackInfo& info) : DescriptorWrap(info) {
  if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "not constructible");
  state_ = *info[0].As<Napi::External<std::shared_ptr<VmState>>>().Data();
  created_here_ = info[1].ToBoolean();
  // With what KVM keeps for it.
  if (created_here_) Costs(16 * kDescriptorCost);
}

void Vm::CloseHandle() {
  if (state_ != nullptr && created_here_) state_->End();
  state_.reset();
}

Napi::Value Vm::Share(const Napi::CallbackInfo& info) {
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  return Napi::BigInt::New(info.Env(), Tokens::OfProcess().Add(state_));
}

Napi::Value Vm::Attach(const Napi::CallbackInfo& info) {
  if (!info[0].IsBigInt()) throw Napi::TypeError::New(info.Env(), "a token is needed");
  bool lossless = false;
  std::shared_ptr<VmState> state;
  const uint64_t token = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
  if (const int error = lossless ? Tokens::OfProcess().Take(token, &state) : -ENOENT; error != 0)
    return Napi::Number::New(info.Env(), error);
  return Wrap(info.Env(), std::move(state), false);
}

Napi::Value Vm::Wrap(Napi::Env env, std::shared_ptr<VmState> state, bool created_here) {
  const auto external = Napi::External<std::shared_ptr<VmState>>::New(env, &state);
  return env.GetInstanceData<AddonData>()->vm.New({external, Napi::Boolean::New(env, created_here)});
}

Napi::Value Vm::SetMemoryRegion(const Napi::CallbackInfo& info) {
  const VmState::Change change = ChangeOf(info[0], info[1], info[2], info[3]);
  return Napi::Number::New(info.Env(), fd() < 0 || change.request == 0 ? -EBADF : state_->SetMemoryRegion(change));
}

// (changes): each an array of the arguments of SetMemoryRegion. 0, or [negative errno, number of the change that failed].
Napi::Value Vm::SetMemoryRegions(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsArray()) throw Napi::TypeError::New(env, "an array is needed");
  const auto list = info[0].As<Napi::Array>();
  std::vector<VmState::Change> changes;
  int error = fd() < 0 ? -EBADF : 0;
  for (uint32_t index = 0; index < list.Length(); index++) {
    const auto one = list.Get(index).As<Napi::Object>();
    changes.push_back(ChangeOf(one.Get(0u), one.Get(1u), one.Get(2u), one.Get(3u)));
    if (changes.back().request == 0) error = -EBADF;
  }
  size_t failed = 0;
  if (error == 0) error = state_->SetMemoryRegions(changes, &failed);
  if (error == 0) return Napi::Number::New(env, 0);
  const auto result = Napi::Array::New(env, 2);
  result.Set(0u, Napi::Number::New(env, error));
  result.Set(1u, Napi::Number::New(env, static_cast<double>(failed)));
  return result;
}

Napi::Value Vm::RunPageSize(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), state_ == nullptr ? 0 : static_cast<double>(state_->run_page_size()));
}

Napi::Value Vm::Generation(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), state_ == nullptr ? -1 : static_cast<double>(state_->generation()));
}

Napi::Value Vm::Memslots(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  uint64_t generation = 0;
  const auto slots = state_ == nullptr ? std::map<uint32_t, VmState::Slot>() : state_->Slots(&generation);
  const auto rows = Napi::Array::New(env, slots.size());
  uint32_t index = 0;
  for (const auto& [id, slot] : slots) {
    const auto row = Napi::Object::New(env);
    row.Set("id", static_cast<double>(id));
    row.Set("gpa", static_cast<double>(slot.gpa));
    row.Set("size", static_cast<double>(slot.size));
    row.Set("offset", static_cast<double>(slot.offset));
    row.Set("flags", static_cast<double>(slot.flags));
    row.Set("region", Mapping::Wrap(env, slot.region));
    rows.Set(index++, row);
  }
  const auto result = Napi::Object::New(env);
  result.Set("generation", static_cast<double>(generation));
  result.Set("rows", rows);
  return result;
}

Napi::Value Vm::TakeSlotId(const Napi::CallbackInfo& info) {
  const auto limit = static_cast<uint32_t>(WholeNumber(info[0], "limit", INT32_MAX));
  return Napi::Number::New(info.Env(), fd() < 0 ? -EBADF : state_->TakeSlotId(limit));
}

void Vm::ReturnSlotId(const Napi::CallbackInfo& info) {
  const auto id = static_cast<uint32_t>(WholeNumber(info[0], "id", INT32_MAX));
  if (state_ != nullptr) state_->ReturnSlotId(id);
}

Napi::Value Vm::GetDirtyLog(const Napi::CallbackInfo& info) {
  const auto slot = static_cast<uint32_t>(WholeNumber(info[0], "slot", UINT32_MAX));
  const ByteSpan bitmap = BytesOf(info[1]);
  return Napi::Number::New(info.Env(), fd() < 0 ? -EBADF : state_->GetDirtyLog(slot, bitmap.data, bitmap.length));
}

Napi::Value Vm::ClearDirtyLog(const Napi::CallbackInfo& info) {
  const auto slot = static_cast<uint32_t>(WholeNumber(info[0], "slot", UINT32_MAX));
  const uint64_t first = WholeNumber(info[1], "first");
  const auto pages = static_cast<uint32_t>(WholeNumber(info[2], "pages", UINT32_MAX));
  const ByteSpan bitmap = BytesOf(info[3]);
  return Napi::Number::New(info.Env(), state_ == nullptr ? -EBADF : state_->ClearDirtyLog(slot, first, pages, bitmap.data, bitmap.length));
}

Napi::Value Vm::EnableDirtyRing(const Napi::CallbackInfo& info) {
  const auto capability = static_cast<uint32_t>(WholeNumber(info[0], "capability", UINT32_MAX));
  const uint64_t bytes = WholeNumber(info[1], "bytes", 1 << 30);
  return Napi::Number::New(info.Env(), state_ == nullptr ? -EBADF : state_->dirty_rings().Enable(fd(), capability, bytes));
}

// Pairs of slot and page.
Napi::Value Vm::HarvestDirtyRings(const Napi::CallbackInfo& info) {
  if (state_ == nullptr) return Napi::Number::New(info.Env(), -EBADF);
  std::vector<DirtyRings::Page> pages;
  const int result = state_->dirty_rings().Harvest(fd(), &pages);
  if (result < 0) return Napi::Number::New(info.Env(), result);
  auto pairs = Napi::Float64Array::New(info.Env(), pages.size() * 2, NewBuffer(info.Env(), pages.size() * 2 * sizeof(double)), 0);
  for (size_t index = 0; index < pages.size(); ++index) {
    pairs[index * 2] = pages[index].slot;
    pairs[index * 2 + 1] = static_cast<double>(pages[index].offset);
  }
  return pairs;
}

Napi::Value Vm::DrainCoalesced(const Napi::CallbackInfo& info) {
  const ByteSpan target = BytesOf(info[0]);
  return Napi::Number::New(info.Env(), state_ == nullptr ? 0 : state_->coalesced_ring().Drain(target.data, target.length));
}

// Its own descriptor object: the kernel's memslot holds the file, so that closing the handle first is harmless.
Napi::Value Vm::CreateGuestMemfd(const Napi::CallbackInfo& info) {
  const auto request = static_cast<unsigned long>(WholeNumber(info[0], "request", UINT32_MAX));
  const ByteSpan argument = BytesOf(info[1]);
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  if (_IOC_NR(request) != kCreateGuestMemfd || _IOC_TYPE(request) != KVMIO || argument.length < _IOC_SIZE(request))
    return Napi::Number::New(info.Env(), -E2BIG);
  const int memfd = IoctlUninterrupted(fd(), request, argument.data);
  return WrapDescriptor(info.Env(), memfd < 0 ? -errno : memfd);
}

Napi::Value Vm::CreateVcpu(const Napi::CallbackInfo& info) {
  const auto id = static_cast<uint32_t>(WholeNumber(info[0], "id", UINT32_MAX));
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  std::shared_ptr<RunPage> page;
  if (const int error = TakeMappings(3); error != 0) return Napi::Number::New(info.Env(), error);
  if (const int error = state_->CreateVcpu(id, &page); error != 0) return Napi::Number::New(info.Env(), error);
  return VcpuObject(info.Env(), {state_, std::move(page)});
}

Napi::Value Vm::FindVcpu(const Napi::CallbackInfo& info) {
  const auto id = static_cast<uint32_t>(WholeNumber(info[0], "id", UINT32_MAX));
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  std::shared_ptr<RunPage> page = state_->FindVcpu(id);
  return page == nullptr ? Napi::Value(Napi::Number::New(info.Env(), -ENOENT)) : VcpuObject(info.Env(), {state_, std::move(page)});
}

}  // namespace node_kvm
