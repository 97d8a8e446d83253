#include "core/vm_state.h"

#include <errno.h>
#include <sys/ioctl.h>

#include "core/kvm_abi.h"

namespace node_kvm {
namespace {

// Keeps all vCPUs out of the guest while it lives, even if something throws meanwhile. All are asked to leave before one is awaited.
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

int VmState::ChangeMemslot(Memslots::Change* change, Memslots::Refusal* refusal) {
  const Locked lock(mutex_);
  return ended_ ? -EBADF : memslots_.Apply(change, refusal);
}

int VmState::ChangeMemslots(std::vector<Memslots::Change>* changes, Memslots::Refusal* refusal) {
  const Locked lock(mutex_);
  if (ended_) return -EBADF;
  std::vector<Memslots::Step> steps;
  if (const int error = memslots_.Prepare(changes, &steps, refusal); error != 0) return error;
  const auto vcpus = Vcpus();
  const AllParked parked(vcpus);
  return memslots_.Perform(changes, steps, refusal);
}

std::vector<Memslots::Row> VmState::MemslotsSince(uint64_t* generation) {
  const Locked lock(mutex_);
  auto rows = memslots_.Since(*generation);
  *generation = memslots_.generation();
  return rows;
}

int VmState::GetDirtyLog(uint32_t slot, uint64_t computed_from, char* bitmap, size_t length) {
  const Locked lock(mutex_);
  const Memslots::Slot* found = memslots_.Find(slot, computed_from);
  if (found == nullptr) return -ESTALE;
  // The bitmap has one bit for each page, in whole 64-bit words (api.rst 4.8).
  if (length < (found->size / 4096 + 63) / 64 * 8) return -EINVAL;
  kvm_dirty_log argument{};
  argument.slot = slot;
  argument.dirty_bitmap = bitmap;
  return IoctlUninterrupted(fd(), KVM_GET_DIRTY_LOG, &argument) < 0 ? -errno : 0;
}

// Clears whole words, from a word's start (api.rst 4.117).
int VmState::ClearDirtyLog(uint32_t slot, uint64_t computed_from, uint64_t first, uint32_t pages, char* bitmap, size_t length) {
  if (length < (uint64_t{pages} + 63) / 64 * 8) return -E2BIG;
  const Locked lock(mutex_);
  if (memslots_.Find(slot, computed_from) == nullptr) return -ESTALE;
  kvm_clear_dirty_log argument{};
  argument.slot = slot;
  argument.num_pages = pages;
  argument.first_page = first;
  argument.dirty_bitmap = bitmap;
  return IoctlUninterrupted(fd(), KVM_CLEAR_DIRTY_LOG, &argument) < 0 ? -errno : 0;
}

std::vector<std::shared_ptr<RunPage>> VmState::Vcpus() {
  std::vector<std::shared_ptr<RunPage>> alive;
  for (const auto& [id, vcpu] : vcpus_)
    if (auto page = vcpu.lock()) alive.push_back(std::move(page));
  return alive;
}

int VmState::CreateVcpu(uint32_t id, std::shared_ptr<RunPage>* page) {
  const Locked lock(mutex_);
  if (ended_) return -EBADF;
  // This comes before the descriptor exists, because nobody would close the descriptor if it failed.
  auto made = std::make_shared<RunPage>();
  const int fd = IoctlUninterrupted(this->fd(), KVM_CREATE_VCPU, id);
  if (fd < 0) return -errno;
  if (const int error = made->Open(fd, run_page_size_); error != 0) return error;
  coalesced_ring_.Attach(made->fd());
  if (const int error = dirty_rings_.Add(made->fd()); error != 0) return error;
  vcpus_[id] = made;
  *page = std::move(made);
  return 0;
}

std::shared_ptr<RunPage> VmState::FindVcpu(uint32_t id) {
  const Locked lock(mutex_);
  const auto found = vcpus_.find(id);
  return found == vcpus_.end() ? nullptr : found->second.lock();
}

// Other threads may hold descriptors of the VM for as long as they like, so its memory cannot wait for the VM's end. The kernel lets go of
// a deleted slot at once, whichever thread is in the guest (Memslots::DeleteAll); the threads in the guest were asked to leave before.
void VmState::End() {
  const Locked lock(mutex_);
  ended_ = true;
  for (const auto& vcpu : Vcpus()) vcpu->End();
  memslots_.DeleteAll();
}

}  // namespace node_kvm
