#include "vm_state.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cstring>

namespace node_kvm {
namespace {

constexpr unsigned kSetUserMemoryRegion = 0x46;
constexpr unsigned kSetUserMemoryRegion2 = 0x49;
constexpr unsigned kClearDirtyLog = 0xc0;

// kvm_clear_dirty_log, which is younger than the oldest headers.
struct ClearRequest {
  uint32_t slot;
  uint32_t pages;
  uint64_t first;
  uint64_t bitmap;
};

// Both forms begin with the same fields (api.rst 4.140).
kvm_userspace_memory_region HeadOf(const std::vector<char>& argument) {
  kvm_userspace_memory_region head;
  memcpy(&head, argument.data(), sizeof head);
  return head;
}

bool IsKnown(const VmState::Change& change) {
  const unsigned number = _IOC_NR(change.request);
  return _IOC_TYPE(change.request) == KVMIO && (number == kSetUserMemoryRegion || number == kSetUserMemoryRegion2) &&
         change.argument.size() >= _IOC_SIZE(change.request) && change.argument.size() >= sizeof(kvm_userspace_memory_region);
}

// Out of the guest for as long as this lives, whatever is thrown meanwhile. All are asked before one is awaited.
class AllParked {
 public:
  explicit AllParked(const std::vector<std::shared_ptr<RunPage>>& vcpus) : vcpus_(vcpus) {
    for (const auto& vcpu : vcpus_) vcpu->Park();
    for (const auto& vcpu : vcpus_) vcpu->AwaitParked();
  }
  ~AllParked() {
    for (const auto& vcpu : vcpus_) vcpu->Unpark();
    for (const auto& vcpu : vcpus_) vcpu->WakeUnparked();
  }
  AllParked(const AllParked&) = delete;
  AllParked& operator=(const AllParked&) = delete;

 private:
  const std::vector<std::shared_ptr<RunPage>>& vcpus_;
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

int VmState::Apply(const Change& change) {
  if (!IsKnown(change)) return -E2BIG;
  kvm_userspace_memory_region head = HeadOf(change.argument);
  const bool removes = change.region == nullptr;
  if (removes ? head.memory_size != 0 : !change.region->Contains(change.offset, head.memory_size)) return -ERANGE;
  head.userspace_addr = removes ? 0 : reinterpret_cast<uintptr_t>(change.region->base() + change.offset);
  std::vector<char> argument = change.argument;
  memcpy(argument.data(), &head, sizeof head);
  if (IoctlUninterrupted(fd(), change.request, argument.data()) < 0) return -errno;
  ++generation_;
  if (head.memory_size != 0) ++change.region->slots;
  Drop(head.slot);
  if (head.memory_size != 0)
    slots_[head.slot] = {change.region, head.guest_phys_addr, head.memory_size, change.offset, head.flags, change.argument, change.request};
  return 0;
}

int VmState::SetMemoryRegion(const Change& change) {
  const std::lock_guard lock(mutex_);
  const VcpuBarrier barrier;
  return Apply(change);
}

// The slots as they were. All that differ go first, since one may stand where another was.
int VmState::Restore(const std::map<uint32_t, std::optional<Slot>>& before) {
  int result = 0;
  const auto is_as_before = [&](uint32_t id, const std::optional<Slot>& slot) {
    const auto now = slots_.find(id);
    if (now == slots_.end() || !slot) return now == slots_.end() && !slot;
    return now->second.region == slot->region && now->second.offset == slot->offset && now->second.argument == slot->argument;
  };
  for (const auto& [id, slot] : before) {
    if (slots_.count(id) == 0 || is_as_before(id, slot)) continue;
    kvm_userspace_memory_region none{};
    none.slot = id;
    const char* bytes = reinterpret_cast<const char*>(&none);
    if (Apply({KVM_SET_USER_MEMORY_REGION, {bytes, bytes + sizeof none}, nullptr, 0}) != 0) result = -EIO;
  }
  for (const auto& [id, slot] : before)
    if (slot && !is_as_before(id, slot) && Apply({slot->request, slot->argument, slot->region, slot->offset}) != 0) result = -EIO;
  return result;
}

int VmState::SetMemoryRegions(const std::vector<Change>& changes, size_t* failed) {
  const std::lock_guard lock(mutex_);
  std::map<uint32_t, std::optional<Slot>> before;
  for (*failed = 0; *failed < changes.size(); ++*failed) {
    if (!IsKnown(changes[*failed])) return -E2BIG;
    const uint32_t id = HeadOf(changes[*failed].argument).slot;
    const auto found = slots_.find(id);
    before.try_emplace(id, found == slots_.end() ? std::nullopt : std::optional(found->second));
  }
  const VcpuBarrier barrier;
  const auto vcpus = Vcpus();
  const AllParked parked(vcpus);
  int error = 0;
  for (*failed = 0; *failed < changes.size(); ++*failed)
    if ((error = Apply(changes[*failed])) != 0) break;
  if (error != 0 && Restore(before) != 0) error = -EIO;
  return error;
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

std::map<uint32_t, VmState::Slot> VmState::Slots(uint64_t* generation) {
  const std::lock_guard lock(mutex_);
  *generation = generation_;
  return slots_;
}

int VmState::TakeSlotId(uint32_t limit) {
  const std::lock_guard lock(mutex_);
  if (!free_ids_.empty()) {
    const uint32_t id = free_ids_.back();
    free_ids_.pop_back();
    return static_cast<int>(id);
  }
  return next_id_ < limit ? static_cast<int>(next_id_++) : -ENOSPC;
}

void VmState::ReturnSlotId(uint32_t id) {
  const std::lock_guard lock(mutex_);
  if (id < next_id_ && slots_.count(id) == 0) free_ids_.push_back(id);
}

std::vector<std::shared_ptr<RunPage>> VmState::Vcpus() {
  std::vector<std::shared_ptr<RunPage>> alive;
  for (const auto& [id, vcpu] : vcpus_)
    if (auto page = vcpu.lock()) alive.push_back(std::move(page));
  return alive;
}

int VmState::CreateVcpu(uint32_t id, std::shared_ptr<RunPage>* page) {
  const std::lock_guard lock(mutex_);
  if (ended_) return -EBADF;
  const int fd = IoctlUninterrupted(this->fd(), KVM_CREATE_VCPU, id);
  if (fd < 0) return -errno;
  auto made = std::make_shared<RunPage>();
  if (const int error = made->Open(fd, run_page_size_); error != 0) return error;
  coalesced_ring_.Attach(made->fd());
  if (const int error = dirty_rings_.Add(made->fd()); error != 0) return error;
  vcpus_[id] = made;
  *page = std::move(made);
  return 0;
}

std::shared_ptr<RunPage> VmState::FindVcpu(uint32_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = vcpus_.find(id);
  return found == vcpus_.end() ? nullptr : found->second.lock();
}

void VmState::End() {
  const std::lock_guard lock(mutex_);
  ended_ = true;
  for (const auto& vcpu : Vcpus()) vcpu->End();
}

}  // namespace node_kvm
