#include "vm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "mapping.h"
#include "vcpu.h"

namespace node_kvm {

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

int VmState::SetMemoryRegion(uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size, const std::shared_ptr<Region>& region,
                             uint64_t offset) {
  const bool removes = region == nullptr;
  if (removes ? size != 0 : !region->Contains(offset, size)) return -ERANGE;
  kvm_userspace_memory_region argument{};
  argument.slot = slot;
  argument.flags = flags;
  argument.guest_phys_addr = gpa;
  argument.memory_size = size;
  argument.userspace_addr = removes ? 0 : reinterpret_cast<uintptr_t>(region->base() + offset);
  const std::lock_guard lock(mutex_);
  if (IoctlUninterrupted(fd(), KVM_SET_USER_MEMORY_REGION, &argument) < 0) return -errno;
  if (!removes && size != 0) ++region->slots;
  Drop(slot);
  if (!removes && size != 0) slots_[slot] = {region, size};
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

Napi::Function Vm::Define(Napi::Env env) {
  auto methods = SharedMethods();
  methods.push_back(InstanceMethod("setMemoryRegion", &Vm::SetMemoryRegion));
  methods.push_back(InstanceMethod("getDirtyLog", &Vm::GetDirtyLog));
  methods.push_back(InstanceMethod("createVcpu", &Vm::CreateVcpu));
  return DefineClass(env, "Vm", methods);
}

Vm::Vm(const Napi::CallbackInfo& info) : DescriptorWrap(info) {
  if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "not constructible");
  state_ = std::make_shared<VmState>(std::move(*info[0].As<Napi::External<OwnedFd>>().Data()));
}

Napi::Value Vm::SetMemoryRegion(const Napi::CallbackInfo& info) {
  const auto slot = static_cast<uint32_t>(WholeNumber(info[0], "slot", UINT32_MAX));
  const auto flags = static_cast<uint32_t>(WholeNumber(info[1], "flags", UINT32_MAX));
  const uint64_t gpa = WholeNumber(info[2], "gpa");
  const uint64_t size = WholeNumber(info[3], "size");
  const std::shared_ptr<Region> region = info[4].IsNull() ? nullptr : Mapping::RegionOf(info[4]);
  const uint64_t offset = WholeNumber(info[5], "offset");
  if (state_ == nullptr || (region == nullptr && !info[4].IsNull())) return Napi::Number::New(info.Env(), -EBADF);
  return Napi::Number::New(info.Env(), state_->SetMemoryRegion(slot, flags, gpa, size, region, offset));
}

Napi::Value Vm::GetDirtyLog(const Napi::CallbackInfo& info) {
  const auto slot = static_cast<uint32_t>(WholeNumber(info[0], "slot", UINT32_MAX));
  const ByteSpan bitmap = BytesOf(info[1]);
  return Napi::Number::New(info.Env(), state_ == nullptr ? -EBADF : state_->GetDirtyLog(slot, bitmap.data, bitmap.length));
}

Napi::Value Vm::CreateVcpu(const Napi::CallbackInfo& info) {
  const uint64_t id = WholeNumber(info[0], "id", UINT32_MAX);
  const uint64_t mmap_size = WholeNumber(info[1], "mmapSize", 1 << 30);
  if (state_ == nullptr) return Napi::Number::New(info.Env(), -EBADF);
  const int fd = IoctlUninterrupted(state_->fd(), KVM_CREATE_VCPU, id);
  if (fd < 0) return Napi::Number::New(info.Env(), -errno);
  VcpuParts parts{state_, std::make_unique<RunPage>()};
  if (const int error = parts.page->Open(fd, mmap_size); error != 0) return Napi::Number::New(info.Env(), error);
  return info.Env().GetInstanceData<AddonData>()->vcpu.New({Napi::External<VcpuParts>::New(info.Env(), &parts)});
}

}  // namespace node_kvm
