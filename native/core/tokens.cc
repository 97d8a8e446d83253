#include "core/tokens.h"

#include <errno.h>
#include <sys/random.h>

#include <algorithm>

namespace node_kvm {

// A token must not be guessed: it is all that a Worker needs to get the VM.
int Tokens::Add(const std::shared_ptr<VmState>& vm, const void* sharer, uint64_t* token) {
  const std::lock_guard lock(mutex_);
  std::erase_if(tokens_, [](const auto& entry) { return entry.second.vm.expired(); });
  do
    if (getrandom(token, sizeof *token, 0) != sizeof *token) return -errno;
  while (!tokens_.try_emplace(*token, Shared{vm, vm, sharer}).second);
  return 0;
}

int Tokens::Take(uint64_t token, std::shared_ptr<VmState>* vm) {
  const std::lock_guard lock(mutex_);
  const auto found = tokens_.find(token);
  if (found == tokens_.end()) return -ENOENT;
  *vm = found->second.vm.lock();
  tokens_.erase(found);
  return *vm == nullptr || (*vm)->ended() ? -EBADF : 0;
}

// Lets go of the VMs one after the other, each without the lock: a VM's end may take a while, and no other thread should wait for it.
template <typename Concerns>
void Tokens::LetGo(Concerns concerns) {
  for (std::shared_ptr<VmState> ending;; ending.reset()) {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(tokens_.begin(), tokens_.end(),
                                    [&](const auto& entry) { return entry.second.held != nullptr && concerns(entry.second); });
    if (found == tokens_.end()) return;
    ending = std::move(found->second.held);
  }
}

void Tokens::EndVm(const VmState* vm) {
  LetGo([vm](const Shared& shared) { return shared.held.get() == vm; });
}
void Tokens::EndSharer(const void* sharer) {
  LetGo([sharer](const Shared& shared) { return shared.sharer == sharer; });
}

Tokens& Tokens::OfProcess() {
  static auto* tokens = new Tokens;
  return *tokens;
}

}  // namespace node_kvm
