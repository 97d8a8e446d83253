// The VMs that were shared and not attached yet. This file uses no N-API.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "core/vm_state.h"

namespace node_kvm {

// A token holds its VM, so that the environment that shares the VM may drop it before another attaches it. The token holds it until it is
// taken, the VM is ended for all, or the environment that shared it ends. After that, for a while, the token still tells what became of the
// VM.
class Tokens {
 public:
  // Returns zero or a negative errno. `sharer` identifies an environment.
  int Add(const std::shared_ptr<VmState>& vm, const void* sharer, uint64_t* token);
  // Fails with ENOENT if there is no such token, or it was taken; with EBADF if its VM ended.
  int Take(uint64_t token, std::shared_ptr<VmState>* vm);
  void EndVm(const VmState* vm);
  void EndSharer(const void* sharer);
  // This is never destroyed: a Worker may be in it when the process ends.
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
