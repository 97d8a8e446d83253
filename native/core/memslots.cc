#include "core/memslots.h"

#include <errno.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "core/kvm_abi.h"

namespace node_kvm {
namespace {

using Slot = Memslots::Slot;
using Change = Memslots::Change;
using Step = Memslots::Step;

const Slot kNone;

// The kernel changes a slot's address and its dirty logging in place, and nothing else (api.rst 4.35).
bool ChangesInPlace(const Slot& before, const Slot& after) {
  const bool same_memory = before.region == after.region && before.offset == after.offset && before.size == after.size;
  return same_memory && before.guest_memfd == nullptr && ((before.flags ^ after.flags) & ~uint32_t{KVM_MEM_LOG_DIRTY_PAGES}) == 0;
}

uint32_t LimitOf(int vm_fd) {
  const int limit = IoctlUninterrupted(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
  return limit > 0 ? static_cast<uint32_t>(limit) : 0;
}

// Finds an order in which slots can be placed, so that none overlaps another on the way: a slot in the way of another is placed first.
// Where slots wait for each other in a circle, one of them is taken away before all.
class Placing {
 public:
  // `places` lists, by ascending GPA, where the existing slots of the changes are. Slots in `removed` are not in the way.
  struct Place {
    uint64_t gpa, end;
    size_t change;
  };
  Placing(const std::vector<Change>& changes, const std::vector<Place>& places, std::vector<bool>* removed)
      : changes_(changes), places_(places), removed_(*removed), state_(changes.size(), kUntouched) {}

  std::vector<size_t> Order() {
    for (size_t change = 0; change < changes_.size(); ++change)
      if (changes_[change].after.size != 0 && state_[change] == kUntouched) Visit(change);
    return std::move(order_);
  }

 private:
  enum State : char { kUntouched, kWaiting, kPlaced };
  struct Visited {
    size_t change;
    size_t next;  // the next place that may be in this change's way
  };

  // Slots do not overlap, so their ends ascend as their beginnings do.
  void Begin(size_t change) {
    const auto first =
        std::partition_point(places_.begin(), places_.end(), [&](const Place& place) { return place.end <= changes_[change].after.gpa; });
    state_[change] = kWaiting;
    waiting_.push_back({change, static_cast<size_t>(first - places_.begin())});
  }
  // There is no recursion, because a chain may be as long as the table.
  void Visit(size_t root) {
    for (Begin(root); !waiting_.empty();) {
      auto& [change, next] = waiting_.back();
      const Slot& after = changes_[change].after;
      if (next == places_.size() || places_[next].gpa >= after.gpa + after.size) {
        state_[change] = kPlaced;
        order_.push_back(change);
        waiting_.pop_back();
        continue;
      }
      const size_t other = places_[next++].change;
      if (other == change || removed_[other]) continue;
      if (state_[other] == kUntouched)
        Begin(other);
      else if (state_[other] == kWaiting)
        removed_[other] = true;
    }
  }

  const std::vector<Change>& changes_;
  const std::vector<Place>& places_;
  std::vector<bool>& removed_;
  std::vector<State> state_;
  std::vector<Visited> waiting_;
  std::vector<size_t> order_;
};

}  // namespace

Memslots::Memslots(int vm_fd) : vm_fd_(vm_fd), limit_(LimitOf(vm_fd)) {}

Memslots::~Memslots() {
  for (const Slot& slot : slots_)
    if (slot.region != nullptr) --slot.region->slots;
}

// Compares the change with the slot's state, and fills in the fields that the change leaves as they are.
int Memslots::Resolve(Change* change) const {
  Slot& after = change->after;
  if (change->id != kNew) {
    const Slot* now = Find(change->id, change->computed_from);
    if (now == nullptr) return -ESTALE;
    if (after.size == 0) return after = {}, 0;
    after.created = now->created;
    after.guest_memfd = now->guest_memfd;
    if (after.region == nullptr) after.region = now->region;
  }
  return after.region != nullptr && after.size != 0 && after.region->Contains(after.offset, after.size) ? 0 : -ERANGE;
}

const Slot* Memslots::Find(uint32_t id, uint64_t changed) const {
  return id < slots_.size() && slots_[id].region != nullptr && slots_[id].changed == changed ? &slots_[id] : nullptr;
}

// Everything that needs memory is done here, so that nothing can fail between the kernel's change and its record: afterwards there is room
// for every id among the free ones.
int Memslots::ProvideIds(size_t count) {
  while (free_ids_.size() < count) {
    if (slots_.size() >= limit_) return -ENOSPC;
    if (free_ids_.capacity() <= slots_.size()) free_ids_.reserve(2 * slots_.size() + 1);
    slots_.emplace_back();
    free_ids_.push_back(static_cast<uint32_t>(slots_.size() - 1));
  }
  return 0;
}

uint32_t Memslots::TakeId() {
  const uint32_t id = free_ids_.back();
  free_ids_.pop_back();
  return id;
}

void Memslots::ReturnId(uint32_t id) { free_ids_.push_back(id); }

int Memslots::Tell(uint32_t id, const Slot& slot) const {
  // The second form (api.rst 4.140) begins with the same fields as the first.
  kvm_userspace_memory_region2 argument{};
  argument.slot = id;
  if (slot.region != nullptr) {
    argument.flags = slot.flags;
    argument.guest_phys_addr = slot.gpa;
    argument.memory_size = slot.size;
    argument.userspace_addr = reinterpret_cast<uintptr_t>(slot.region->base() + slot.offset);
  }
  if (slot.guest_memfd == nullptr) return IoctlUninterrupted(vm_fd_, KVM_SET_USER_MEMORY_REGION, &argument) < 0 ? -errno : 0;
  argument.guest_memfd = static_cast<uint32_t>(slot.guest_memfd->get());
  argument.guest_memfd_offset = slot.guest_memfd_offset;
  return IoctlUninterrupted(vm_fd_, KVM_SET_USER_MEMORY_REGION2, &argument) < 0 ? -errno : 0;
}

void Memslots::Record(Change* change, Slot slot) {
  Slot& now = slots_[change->id];
  if (slot.region != nullptr) ++slot.region->slots;
  if (now.region != nullptr) --now.region->slots;
  now = std::move(slot);
  now.changed = change->computed_from = generation_.load(std::memory_order_relaxed) + 1;
  if (now.region == nullptr)
    ReturnId(change->id);
  else if (now.created == 0)
    now.created = now.changed;
  generation_.store(now.changed, std::memory_order_release);
}

// Only slots that no change concerns are looked at.
void Memslots::NameOverlap(const std::vector<bool>& changing, const Slot& wanted, Refusal* refusal) const {
  for (uint32_t id = 0; id < slots_.size(); ++id) {
    const Slot& slot = slots_[id];
    if (changing[id] || slot.region == nullptr || slot.gpa >= wanted.gpa + wanted.size || wanted.gpa >= slot.gpa + slot.size) continue;
    refusal->id = id;
    refusal->gpa = slot.gpa;
    refusal->size = slot.size;
    return;
  }
}

std::vector<bool> Memslots::Changing(const std::vector<Change>& changes) const {
  std::vector<bool> changing(slots_.size());
  for (const Change& change : changes)
    if (change.id != kNew) changing[change.id] = true;
  return changing;
}

int Memslots::Apply(Change* change, Refusal* refusal) {
  if (const int error = Resolve(change); error != 0) return error;
  const bool is_new = change->id == kNew;
  if (is_new) {
    if (const int error = ProvideIds(1); error != 0) return error;
    change->id = TakeId();
  }
  if (const int error = Tell(change->id, change->after); error != 0) {
    if (is_new) ReturnId(change->id);
    if (error == -EEXIST) NameOverlap(Changing({*change}), change->after, refusal);
    return error;
  }
  Record(change, std::move(change->after));
  return 0;
}

std::vector<Step> Memslots::Plan(const std::vector<Change>& changes) const {
  std::vector<Placing::Place> places;
  std::vector<bool> removed(changes.size());
  for (size_t index = 0; index < changes.size(); ++index) {
    if (changes[index].id == kNew) continue;
    const Slot& before = slots_[changes[index].id];
    places.push_back({before.gpa, before.gpa + before.size, index});
    removed[index] = changes[index].after.size == 0 || !ChangesInPlace(before, changes[index].after);
  }
  std::sort(places.begin(), places.end(), [](const auto& one, const auto& other) { return one.gpa < other.gpa; });
  const std::vector<size_t> order = Placing(changes, places, &removed).Order();
  std::vector<Step> steps;
  for (size_t index = 0; index < changes.size(); ++index)
    if (removed[index]) steps.push_back({index, true});
  for (const size_t index : order) steps.push_back({index, false});
  return steps;
}

int Memslots::Prepare(std::vector<Change>* changes, std::vector<Step>* steps, Refusal* refusal) {
  std::vector<bool> seen(slots_.size());
  size_t created = 0;
  for (refusal->change = 0; refusal->change < changes->size(); ++refusal->change) {
    Change& change = (*changes)[refusal->change];
    if (const int error = Resolve(&change); error != 0) return error;
    if (change.id == kNew) {
      if (const int error = ProvideIds(++created); error != 0) return error;
    } else {
      if (seen[change.id]) return -EINVAL;
      seen[change.id] = true;
    }
  }
  *steps = Plan(*changes);
  return 0;
}

int Memslots::Perform(std::vector<Change>* changes, const std::vector<Step>& steps, Refusal* refusal) {
  // `before` has each slot as it was before the changes, `now` as the kernel has it, and `had` as it was before each step.
  std::vector<Slot> before;
  for (const Change& change : *changes) before.push_back(change.id == kNew ? kNone : slots_[change.id]);
  std::vector<const Slot*> now, had;
  for (const Slot& slot : before) now.push_back(&slot);
  had.reserve(steps.size());
  const std::vector<bool> changing = Changing(*changes);
  for (Change& change : *changes)
    if (change.id == kNew) change.id = TakeId();
  int error = 0;
  for (const auto& [index, removes] : steps) {
    const Change& change = (*changes)[index];
    const Slot& next = removes ? kNone : change.after;
    if ((error = Tell(change.id, next)) != 0) {
      refusal->change = index;
      if (error == -EEXIST) NameOverlap(changing, next, refusal);
      break;
    }
    had.push_back(std::exchange(now[index], &next));
  }
  // On the way back the table passes only through states that it was in already.
  if (error != 0)
    for (size_t step = had.size(); step-- > 0;) {
      const size_t index = steps[step].change;
      if (Tell((*changes)[index].id, *had[step]) == 0) now[index] = had[step];
    }
  // The ids that got no slot are returned in reverse order, so that the free ids are as they were.
  for (size_t index = changes->size(); index-- > 0;)
    if (now[index]->region == nullptr && before[index].region == nullptr) now[index] = &before[index], ReturnId((*changes)[index].id);
  for (size_t index = 0; index < changes->size(); ++index) {
    if (now[index] == &before[index]) continue;
    if (error != 0) error = kNotUndone;
    Record(&(*changes)[index], *now[index]);
  }
  return error;
}

void Memslots::DeleteAll() {
  for (uint32_t id = 0; id < slots_.size(); ++id) {
    Change change{id, slots_[id].changed, {}};
    Refusal refusal;
    if (slots_[id].region != nullptr) Apply(&change, &refusal);
  }
}

std::vector<Memslots::Row> Memslots::Since(uint64_t generation) const {
  std::vector<Row> rows;
  for (uint32_t id = 0; id < slots_.size(); ++id)
    if (slots_[id].changed > generation) rows.push_back({id, slots_[id]});
  return rows;
}

}  // namespace node_kvm
