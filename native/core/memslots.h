// The first table: the memslots of a VM. No lock here (VmState has it), and no N-API, so that the stress programs drive the same code.
//
// How several environments change one table. Each has a copy in TypeScript (lib/memory/memslots.ts), which lags behind: what it asks for
// was computed from rows that another environment may have changed since. So:
//   - The table counts its changes. A slot keeps the numbers of the change that created it and of the last that changed it. No number is
//     given twice, whereas ids are: `created` says which slot it is, `changed` in which state.
//   - A change names the state that it was computed from. It is made only while that is the state of the slot, else it is refused with
//     ESTALE and nothing is done: comparison, ioctl and record are one step under the lock. Of a slot to be, the state is none, and its id
//     is found in the same step.
//   - Of several changes together all are compared before the first is made.
//   - Whether slots overlap is a question about the newest table, and the kernel answers it (EEXIST).
//   - Who was refused takes over the rows that changed since the count it knows, in one step under the lock, and either computes its
//     change anew or tells its caller of the conflict.
// Hence every change is made whole, on the state that its maker knew; a slot is never taken for another that has its id; a copy that has
// followed equals the table. Whoever is refused was overtaken by a change that was made, so that somebody always gets on. All orders of
// two environments are tried by test/host/memslot-interleavings.test.ts.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/owned_fd.h"
#include "core/region.h"

namespace node_kvm {

class Memslots {
 public:
  struct Slot {
    std::shared_ptr<Region> region;  // null: no slot has this id
    // A descriptor of our own: the caller's may be closed, and its number another file's, when the slot must be given to the kernel again.
    std::shared_ptr<OwnedFd> guest_memfd;
    uint64_t gpa = 0, size = 0, offset = 0, guest_memfd_offset = 0;
    uint32_t flags = 0;
    // Numbers of changes. An id without a slot keeps the number of the deletion.
    uint64_t created = 0, changed = 0;
  };
  static constexpr uint32_t kNew = UINT32_MAX;
  struct Change {
    uint32_t id;             // kNew, until it is made
    uint64_t computed_from;  // Slot::changed; 0 for a new one
    // With size 0 the slot goes. Without a region it keeps the one it has; a guest_memfd stays anyway.
    Slot after;
  };
  // Which of the changes, and for EEXIST the slot in the way, if there is one (else kNew).
  struct Refusal {
    size_t change = 0;
    uint32_t id = kNew;
    uint64_t gpa = 0, size = 0;
  };
  struct Row {
    uint32_t id;
    Slot slot;
  };
  // One ioctl: a slot is placed, or taken away.
  struct Step {
    size_t change;
    bool removes;
  };

  // The descriptor stays the caller's, and open for as long as this lives but for its destruction.
  explicit Memslots(int vm_fd);
  // The VM's descriptors are closed: KVM keeps the addresses of a memslot for as long as the VM lives.
  ~Memslots();
  Memslots(const Memslots&) = delete;
  Memslots& operator=(const Memslots&) = delete;

  // All of these: zero, or a negative errno and the refusal. In the change its id and number are told.
  int Apply(Change* change, Refusal* refusal);
  // Several together: compared and put in order first; then, while no vCPU is in the guest, made, all or none. EIO: the kernel did not
  // take back what it had taken, and the table is what it has.
  int Prepare(std::vector<Change>* changes, std::vector<Step>* steps, Refusal* refusal);
  int Perform(std::vector<Change>* changes, const std::vector<Step>& steps, Refusal* refusal);
  // The slots go as by so many deletions: once the kernel took one away, no vCPU uses its memory (KVM waits for those that might, and drops
  // their translations), whichever descriptors of the VM are still open.
  void DeleteAll();

  // The number of the last change; for any thread.
  uint64_t generation() const { return generation_.load(std::memory_order_acquire); }
  // What changed after that one, with deleted slots.
  std::vector<Row> Since(uint64_t generation) const;
  // Null when that is not the slot's state.
  const Slot* Find(uint32_t id, uint64_t changed) const;

 private:
  int Resolve(Change* change) const;
  int ProvideIds(size_t count);
  uint32_t TakeId();
  void ReturnId(uint32_t id);
  int Tell(uint32_t id, const Slot& slot) const;
  void Record(Change* change, Slot slot);
  void NameOverlap(const std::vector<bool>& changing, const Slot& wanted, Refusal* refusal) const;
  std::vector<bool> Changing(const std::vector<Change>& changes) const;
  std::vector<Step> Plan(const std::vector<Change>& changes) const;

  const int vm_fd_;
  const uint32_t limit_;
  std::vector<Slot> slots_;  // by id
  std::vector<uint32_t> free_ids_;
  std::atomic<uint64_t> generation_{0};
};

}  // namespace node_kvm
