// A VM's descriptor, and the regions its memslots point to.
#pragma once

#include <map>
#include <mutex>

#include "coalesced_ring.h"
#include "descriptor.h"
#include "dirty_rings.h"
#include "region.h"

namespace node_kvm {

// KVM keeps the addresses of a memslot for as long as the VM lives, and the VM lives while any of its descriptors does. So the
// regions belong to this state, which the Vm and each of its vCPUs share, and not to an object that a collector may take first.
class VmState {
 public:
  explicit VmState(OwnedFd fd) : fd_(std::move(fd)) {}
  ~VmState();
  int fd() const { return fd_.get(); }
  // KVM_SET_USER_MEMORY_REGION or its second form, as `request` says; `argument` is the structure without its userspace_addr, which is
  // filled in here: the address is never the caller's to choose. A null region is for a slot's deletion.
  int SetMemoryRegion(unsigned long request, char* argument, size_t length, const std::shared_ptr<Region>& region, uint64_t offset);
  int GetDirtyLog(uint32_t slot, char* bitmap, size_t length);
  int ClearDirtyLog(uint32_t slot, uint64_t first, uint32_t pages, char* bitmap, size_t length);
  // What the VM shares with user space through its vCPUs.
  int AddVcpu(int vcpu_fd);
  DirtyRings& dirty_rings() { return dirty_rings_; }
  CoalescedRing& coalesced_ring() { return coalesced_ring_; }

 private:
  struct Slot {
    std::shared_ptr<Region> region;
    uint64_t size;
  };
  void Drop(uint32_t slot);

  OwnedFd fd_;
  std::mutex mutex_;
  std::map<uint32_t, Slot> slots_;
  DirtyRings dirty_rings_;
  CoalescedRing coalesced_ring_;
};

class Vm : public DescriptorWrap<Vm> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit Vm(const Napi::CallbackInfo& info);
  int fd() const { return state_ ? state_->fd() : -1; }
  void CloseHandle() { state_.reset(); }

 private:
  Napi::Value SetMemoryRegion(const Napi::CallbackInfo& info);
  Napi::Value GetDirtyLog(const Napi::CallbackInfo& info);
  Napi::Value ClearDirtyLog(const Napi::CallbackInfo& info);
  Napi::Value EnableDirtyRing(const Napi::CallbackInfo& info);
  Napi::Value HarvestDirtyRings(const Napi::CallbackInfo& info);
  Napi::Value DrainCoalesced(const Napi::CallbackInfo& info);
  Napi::Value CreateGuestMemfd(const Napi::CallbackInfo& info);
  Napi::Value CreateVcpu(const Napi::CallbackInfo& info);

  std::shared_ptr<VmState> state_;
};

}  // namespace node_kvm
