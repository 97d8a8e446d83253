// VMs that were shared and not attached yet. No N-API here.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "core/vm_state.h"

namespace node_kvm {

// A token holds its VM, so that whoever shares may drop it before it is attached: until it is taken, the VM ends for all, or the
// environment that shared it ends. After that it tells what became of it, for a while.
class Tokens {
 public:
  // Zero, or a negative errno. `sharer` stands for an environment.
  int Add(const std::shared_ptr<VmState>& vm, const void* sharer, uint64_t* token);
  // ENOENT: none such, or taken. EBADF: its VM ended.
  int Take(uint64_t token, std::shared_ptr<VmState>* vm);
  void EndVm(const VmState* vm);
  void EndSharer(const void* sharer);
  // Never destroyed: a Worker may be in it when the process ends.
  static Tokens& OfProcess();

 private:
  struct Shared {
    std::shared_ptr<VmState> held;
    std::weak_ptr<VmState> vm;
    const void* sharer;
  };
  template <typename Concerns>
  void LetGo(Concerns concerns);

  std::mutex mutex_;
  std::map<uint64_t, Shared> tokens_;
};

}  // namespace node_kvm
