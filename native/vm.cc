#include "vm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cstring>

#include "mapping.h"
#include "run.h"
#include "vcpu.h"

namespace node_kvm {
namespace {

constexpr unsigned kSetUserMemoryRegion = 0x46;
constexpr unsigned kSetUserMemoryRegion2 = 0x49;
constexpr unsigned kCreateGuestMemfd = 0xd4;
constexpr unsigned kClearDirtyLog = 0xc0;

// kvm_clear_dirty_log, which is younger than the oldest headers.
struct ClearRequest {
  uint32_t slot;
  uint32_t pages;
  uint64_t first;
  uint64_t bitmap;
};

}  // namespace

VmState::~VmState() {
  fd_.Reset();
  while (!slots_.empty()) Drop(slots_.begin()->first);
}

void VmState::Drop(uint32_t slot) {
  const auto found = slots_.find(slot);
  if (found == slots_.end()) return;
  --found->second.region->slots;
  slots_.erase(found);
}

int VmState::SetMemoryRegion(unsigned long request, char* argument, size_t length, const std::shared_ptr<Region>& region, uint64_t offset) {
  const bool known = _IOC_TYPE(request) == KVMIO && (_IOC_NR(request) == kSetUserMemoryRegion || _IOC_NR(request) == kSetUserMemoryRegion2);
  if (!known || length < _IOC_SIZE(request) || length < sizeof(kvm_userspace_memory_region)) return -E2BIG;
  // Both forms begin with the same fields (api.rst 4.140).
  kvm_userspace_memory_region head;
  memcpy(&head, argument, sizeof head);
  const bool removes = region == nullptr;
  if (removes ? head.memory_size != 0 : !region->Contains(offset, head.memory_size)) return -ERANGE;
  head.userspace_addr = removes ? 0 : reinterpret_cast<uintptr_t>(region->base() + offset);
  memcpy(argument, &head, sizeof head);
  const std::lock_guard lock(mutex_);
  const VcpuBarrier barrier;
  if (IoctlUninterrupted(fd(), request, argument) < 0) return -errno;
  if (head.memory_size != 0) ++region->slots;
  Drop(head.slot);
  if (head.memory_size != 0) slots_[head.slot] = {region, head.memory_size};
  return 0;
}

int VmState::GetDirtyLog(uint32_t slot, char* bitmap, size_t length) {
  const std::lock_guard lock(mutex_);
  const auto found = slots_.find(slot);
  if (found == slots_.end()) return -ENOENT;
  // api.rst 4.8: one bit a page, in whole 64-bit words.
  if (length < (found->second.size / 4096 + 63) / 64 * 8) return -EINVAL;
  kvm_dirty_log argument{};
  argument.slot = slot;
  argument.dirty_bitmap = bitmap;
  return IoctlUninterrupted(fd(), KVM_GET_DIRTY_LOG, &argument) < 0 ? -errno : 0;
}

// api.rst 4.117: whole words, and from a word's start.
int VmState::ClearDirtyLog(uint32_t slot, uint64_t first, uint32_t pages, char* bitmap, size_t length) {
  if (length < (uint64_t{pages} + 63) / 64 * 8) return -E2BIG;
  ClearRequest argument{slot, pages, first, reinterpret_cast<uintptr_t>(bitmap)};
  return IoctlUninterrupted(fd(), _IOWR(KVMIO, kClearDirtyLog, ClearRequest), &argument) < 0 ? -errno : 0;
}

int VmState::AddVcpu(int vcpu_fd) {
  coalesced_ring_.Attach(vcpu_fd);
  return dirty_rings_.Add(vcpu_fd);
}

Napi::Function Vm::Define(Napi::Env env) {
  auto methods = SharedMethods();
  methods.push_back(InstanceMethod("setMemoryRegion", &Vm::SetMemoryRegion));
  methods.push_back(InstanceMethod("getDirtyLog", &Vm::GetDirtyLog));
  methods.push_back(InstanceMethod("clearDirtyLog", &Vm::ClearDirtyLog));
  methods.push_back(InstanceMethod("enableDirtyRing", &Vm::EnableDirtyRing));
  methods.push_back(InstanceMethod("harvestDirtyRings", &Vm::HarvestDirtyRings));
  methods.push_back(InstanceMethod("drainCoalesced", &Vm::DrainCoalesced));
  methods.push_back(InstanceMethod("createGuestMemfd", &Vm::CreateGuestMemfd));
  methods.push_back(InstanceMethod("createVcpu", &Vm::CreateVcpu));
  return DefineClass(env, "Vm", methods);
}

Vm::Vm(const Napi::CallbackInfo& info) : DescriptorWrap(info) {
  if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "not constructible");
  state_ = std::make_shared<VmState>(std::move(*info[0].As<Napi::External<OwnedFd>>().Data()));
}

Napi::Value Vm::SetMemoryRegion(const Napi::CallbackInfo& info) {
  const auto request = static_cast<unsigned long>(WholeNumber(info[0], "request", UINT32_MAX));
  const ByteSpan argument = BytesOf(info[1]);
  const std::shared_ptr<Region> region = info[2].IsNull() ? nullptr : Mapping::RegionOf(info[2]);
  const uint64_t offset = WholeNumber(info[3], "offset");
  if (state_ == nullptr || (region == nullptr && !info[2].IsNull())) return Napi::Number::New(info.Env(), -EBADF);
  return Napi::Number::New(info.Env(), state_->SetMemoryRegion(request, argument.data, argument.length, region, offset));
}

Napi::Value Vm::GetDirtyLog(const Napi::CallbackInfo& info) {
  const auto slot = static_cast<uint32_t>(WholeNumber(info[0], "slot", UINT32_MAX));
  const ByteSpan bitmap = BytesOf(info[1]);
  return Napi::Number::New(info.Env(), state_ == nullptr ? -EBADF : state_->GetDirtyLog(slot, bitmap.data, bitmap.length));
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
  auto pairs = Napi::Float64Array::New(info.Env(), pages.size() * 2);
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
  const uint64_t id = WholeNumber(info[0], "id", UINT32_MAX);
  const uint64_t mmap_size = WholeNumber(info[1], "mmapSize", 1 << 30);
  if (state_ == nullptr) return Napi::Number::New(info.Env(), -EBADF);
  const int fd = IoctlUninterrupted(state_->fd(), KVM_CREATE_VCPU, id);
  if (fd < 0) return Napi::Number::New(info.Env(), -errno);
  VcpuParts parts{state_, std::make_unique<RunPage>()};
  if (const int error = parts.page->Open(fd, mmap_size); error != 0) return Napi::Number::New(info.Env(), error);
  if (const int error = state_->AddVcpu(fd); error != 0) return Napi::Number::New(info.Env(), error);
  return info.Env().GetInstanceData<AddonData>()->vcpu.New({Napi::External<VcpuParts>::New(info.Env(), &parts)});
}

}  // namespace node_kvm
