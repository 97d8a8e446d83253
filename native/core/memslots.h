// The first table: the memslots of a VM. There is no lock here (VmState has it), and no N-API, so that the stress programs drive the same
// code.
//
// This is how several environments change one table. Each has a copy of it in TypeScript (lib/memory/memslots.ts), which lags behind: an
// environment computes a change from rows that another environment may have changed since. So:
//   - The table counts its changes. A slot keeps the number of the change that created it and the number of the last one that changed it.
//     Numbers are never reused, but ids are: `created` says which slot it is, `changed` in which state.
//   - A change names the state from which it was computed. It is made only while the slot is in that state; otherwise it is refused with
//     ESTALE and nothing is done. Comparison, ioctl and record are one step under the lock. A change that creates a slot names no state,
//     and its id is found in the same step.
//   - When several changes are made together, all are compared before the first is made.
//   - Whether slots overlap depends on the newest table, and the kernel decides it (EEXIST).
//   - An environment that was refused takes over, in one step under the lock, the rows that changed since the count it knows. Then it
//     either computes its change anew or tells its caller of the conflict.
// Hence every change is made whole, on the state that its maker knew; a slot is never taken for another slot with the same id; and a copy
// that has caught up equals the table. A refusal means that another change was made first, so some environment always makes progress.
// test/host/memslot-interleavings.test.ts tries all orders of two environments.
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
    // This is a descriptor of our own: the caller's may be closed, and its number may belong to another file, when the slot must be given
    // to the kernel again.
    std::shared_ptr<OwnedFd> guest_memfd;
    uint64_t gpa = 0, size = 0, offset = 0, guest_memfd_offset = 0;
    uint32_t flags = 0;
    // The numbers of changes. An id without a slot keeps the number of the deletion.
    uint64_t created = 0, changed = 0;
  };
  static constexpr uint32_t kNew = UINT32_MAX;
  struct Change {
    uint32_t id;             // kNew, until the slot is made
    uint64_t computed_from;  // Slot::changed; 0 for a new slot
    // A size of 0 deletes the slot. Without a region the slot keeps the one it has; it always keeps its guest_memfd.
    Slot after;
  };
  // The index of the refused change and, for EEXIST, the slot that is in the way (kNew if none is).
  struct Refusal {
    size_t change = 0;
    uint32_t id = kNew;
    uint64_t gpa = 0, size = 0;
  };
  struct Row {
    uint32_t id;
    Slot slot;
  };
  // One ioctl, which places a slot or takes it away.
  struct Step {
    size_t change;
    bool removes;
  };

  // The caller keeps the descriptor, and keeps it open for as long as this object lives, except for its destruction.
  explicit Memslots(int vm_fd);
  // By now the VM's descriptors are closed: KVM keeps the addresses of a memslot for as long as the VM lives.
  ~Memslots();
  Memslots(const Memslots&) = delete;
  Memslots& operator=(const Memslots&) = delete;

  // The functions below return zero, or a negative errno and the refusal. They store the id and number into the change.
  int Apply(Change* change, Refusal* refusal);
  // This is no errno, since KVM has a use of its own for EIO.
  static constexpr int kNotUndone = -4098;
  // Several changes together: Prepare() compares them and puts them in order; then, while no vCPU is in the guest, all of them or none are
  // made. kNotUndone says that the kernel did not restore a slot that it had taken away; the table then records the kernel's state.
  int Prepare(std::vector<Change>* changes, std::vector<Step>* steps, Refusal* refusal);
  int Perform(std::vector<Change>* changes, const std::vector<Step>& steps, Refusal* refusal);
  // Deletes each slot. Once the kernel took a slot away, no vCPU uses its memory (KVM waits for the vCPUs that might, and drops their
  // translations), whichever descriptors of the VM are still open.
  void DeleteAll();

  // The number of the last change. Any thread may ask.
  uint64_t generation() const { return generation_.load(std::memory_order_acquire); }
  // Returns the rows that changed after that number, deleted slots included.
  std::vector<Row> Since(uint64_t generation) const;
  // Returns null when the slot is not in that state.
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
