#include "napi/vm.h"

#include <errno.h>

#include <tuple>

#include "core/kvm_abi.h"
#include "core/map_budget.h"
#include "core/run.h"
#include "core/tokens.h"
#include "napi/ioeventfd.h"
#include "napi/vcpu.h"

namespace node_kvm {

Napi::Function Vm::Define(Napi::Env env) {
  auto methods = SharedMethods();
  methods.push_back(InstanceAccessor<&Vm::RunPageSize>("runPageSize"));
  methods.push_back(InstanceAccessor<&Vm::Generation>("generation"));
  methods.push_back(InstanceAccessor<&Vm::MemslotWords>("memslotWords"));
  methods.push_back(BareMethod<&Vm::ChangeMemslot>("changeMemslot"));
  methods.push_back(InstanceMethod<&Vm::ChangeMemslots>("changeMemslots"));
  methods.push_back(InstanceMethod<&Vm::MemslotsSince>("memslotsSince"));
  methods.push_back(InstanceMethod<&Vm::GetDirtyLog>("getDirtyLog"));
  methods.push_back(InstanceMethod<&Vm::ClearDirtyLog>("clearDirtyLog"));
  methods.push_back(InstanceMethod<&Vm::EnableDirtyRing>("enableDirtyRing"));
  methods.push_back(InstanceMethod<&Vm::HarvestDirtyRings>("harvestDirtyRings"));
  methods.push_back(InstanceMethod<&Vm::AssignIoEventfd>("ioeventfd"));
  methods.push_back(InstanceMethod<&Vm::Coalesce>("coalesce"));
  methods.push_back(InstanceMethod<&Vm::Uncoalesce>("uncoalesce"));
  methods.push_back(InstanceMethod<&Vm::DrainCoalesced>("drainCoalesced"));
  methods.push_back(InstanceMethod<&Vm::CreateGuestMemfd>("createGuestMemfd"));
  methods.push_back(InstanceMethod<&Vm::CreateVcpu>("createVcpu"));
  methods.push_back(InstanceMethod<&Vm::FindVcpu>("findVcpu"));
  methods.push_back(InstanceMethod<&Vm::Share>("share"));
  return DefineClass(env, "Vm", methods);
}

Vm::Vm(const Napi::CallbackInfo& info) : DescriptorWrap(info) {
  std::tie(state_, created_here_) = Taken<Parts>(info);
  // This includes the memory that KVM keeps for a VM.
  if (created_here_) Costs(16 * kDescriptorCost);
}

// A VM that nobody else holds ends, with all its slots, when its last descriptor is closed. Nobody else can come to hold it: there is no
// token any more, and only a holder of the VM could hand it on.
void Vm::CloseHandle() {
  if (state_ != nullptr && created_here_) {
    Tokens::OfProcess().EndVm(state_.get());
    if (state_.use_count() > 1) state_->End();
  }
  LetGo();
}

// Other environments may keep the VM; their guest must not write into ranges at which nobody listens.
void Vm::LetGo() {
  if (state_ == nullptr) return;
  const VcpuBarrier barrier;
  state_->coalesced_ring().Leave(fd(), this);
  state_.reset();
}

Napi::Value Vm::Share(const Napi::CallbackInfo& info) {
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  uint64_t token = 0;
  if (const int error = Tokens::OfProcess().Add(state_, info.Env().GetInstanceData<AddonData>(), &token); error != 0)
    return Napi::Number::New(info.Env(), error);
  return Napi::BigInt::New(info.Env(), token);
}

Napi::Value Vm::Attach(const Napi::CallbackInfo& info) {
  if (!info[0].IsBigInt()) throw Napi::TypeError::New(info.Env(), "the token must be a BigInt");
  bool lossless = false;
  std::shared_ptr<VmState> state;
  const uint64_t token = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
  if (const int error = lossless ? Tokens::OfProcess().Take(token, &state) : -ENOENT; error != 0)
    return Napi::Number::New(info.Env(), error);
  return Wrap(info.Env(), std::move(state), false);
}

Napi::Value Vm::Wrap(Napi::Env env, std::shared_ptr<VmState> state, bool created_here) {
  return Make(env.GetInstanceData<AddonData>()->vm, Parts(std::move(state), created_here));
}

Napi::Value Vm::RunPageSize(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), state_ == nullptr ? 0 : static_cast<double>(state_->run_page_size()));
}

Napi::Value Vm::EnableDirtyRing(const Napi::CallbackInfo& info) {
  const auto capability = static_cast<uint32_t>(WholeNumber(info[0], "capability", UINT32_MAX));
  // With any other capability the add-on would look for a ring that is not there.
  if (capability != KVM_CAP_DIRTY_LOG_RING && capability != KVM_CAP_DIRTY_LOG_RING_ACQ_REL) return Napi::Number::New(info.Env(), -EINVAL);
  const uint64_t bytes = WholeNumber(info[1], "bytes", 1 << 30);
  return Napi::Number::New(info.Env(), state_ == nullptr ? -EBADF : state_->dirty_rings().Enable(fd(), capability, bytes));
}

// Returns pairs: the slot and the page.
Napi::Value Vm::HarvestDirtyRings(const Napi::CallbackInfo& info) {
  if (state_ == nullptr) return Napi::Number::New(info.Env(), -EBADF);
  Napi::Float64Array pairs;
  const auto take = [&](const std::vector<DirtyRings::Page>& pages) {
    const size_t count = pages.size() * 2;
    pairs = Napi::Float64Array::New(info.Env(), count, NewBuffer(info.Env(), count * sizeof(double)), 0);
    double* next = pairs.Data();
    for (const auto& [slot, offset] : pages) {
      *next++ = slot;
      *next++ = static_cast<double>(offset);
    }
  };
  if (const int error = state_->dirty_rings().Harvest(fd(), take); error < 0) return Napi::Number::New(info.Env(), error);
  return pairs;
}

namespace {

bool ReadZone(const Napi::Value& value, kvm_coalesced_mmio_zone* zone) {
  const ByteSpan bytes = BytesOf(value);
  if (bytes.length < sizeof *zone) return false;
  memcpy(zone, bytes.data, sizeof *zone);
  return true;
}

}  // namespace

Napi::Value Vm::Coalesce(const Napi::CallbackInfo& info) {
  const VcpuBarrier barrier;
  kvm_coalesced_mmio_zone zone;
  if (!ReadZone(info[0], &zone)) return Napi::Number::New(info.Env(), -E2BIG);
  return Napi::Number::New(info.Env(), fd() < 0 ? -EBADF : state_->coalesced_ring().Register(fd(), this, zone));
}

Napi::Value Vm::Uncoalesce(const Napi::CallbackInfo& info) {
  const VcpuBarrier barrier;
  kvm_coalesced_mmio_zone zone;
  const ByteSpan target = BytesOf(info[1]);
  const bool is_there = ReadZone(info[0], &zone) && state_ != nullptr;
  return Napi::Number::New(info.Env(), is_there ? state_->coalesced_ring().Unregister(fd(), this, zone, target.data, target.length) : 0);
}

Napi::Value Vm::AssignIoEventfd(const Napi::CallbackInfo& info) {
  const VcpuBarrier barrier;
  return IoEventfd::Assign(info.Env(), state_, info[0]);
}

Napi::Value Vm::DrainCoalesced(const Napi::CallbackInfo& info) {
  const VcpuBarrier barrier;
  const ByteSpan target = BytesOf(info[0]);
  return Napi::Number::New(info.Env(), state_ == nullptr ? 0 : state_->coalesced_ring().Drain(this, target.data, target.length));
}

// A guest_memfd has a descriptor object of its own: the kernel's memslot holds the file, so it does no harm to close this handle first.
Napi::Value Vm::CreateGuestMemfd(const Napi::CallbackInfo& info) {
  const ByteSpan argument = BytesOf(info[0]);
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  if (argument.length < sizeof(kvm_create_guest_memfd)) return Napi::Number::New(info.Env(), -E2BIG);
  const int memfd = IoctlUninterrupted(fd(), KVM_CREATE_GUEST_MEMFD, argument.data);
  return WrapDescriptor(info.Env(), memfd < 0 ? -errno : memfd);
}

Napi::Value Vm::CreateVcpu(const Napi::CallbackInfo& info) {
  const auto id = static_cast<uint32_t>(WholeNumber(info[0], "id", UINT32_MAX));
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  std::shared_ptr<RunPage> page;
  if (const int error = TakeMappings(3); error != 0) return Napi::Number::New(info.Env(), error);
  if (const int error = state_->CreateVcpu(id, &page); error != 0) return Napi::Number::New(info.Env(), error);
  return Vcpu::Wrap(info.Env(), {state_, std::move(page)});
}

Napi::Value Vm::FindVcpu(const Napi::CallbackInfo& info) {
  const auto id = static_cast<uint32_t>(WholeNumber(info[0], "id", UINT32_MAX));
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  std::shared_ptr<RunPage> page = state_->FindVcpu(id);
  return page == nullptr ? Napi::Value(Napi::Number::New(info.Env(), -ENOENT)) : Vcpu::Wrap(info.Env(), {state_, std::move(page)});
}

}  // namespace node_kvm
