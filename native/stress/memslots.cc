// Several threads change one table, each from a copy of its own that lags behind: no change is made to a state that is gone, and in the end
// every copy equals the table.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "core/vm_state.h"
#include "stress/guest.h"

using namespace node_kvm;

namespace {

constexpr uint64_t kPage = 4096;
constexpr int kPlaces = 24;
constexpr size_t kMost = 12;

std::atomic<bool> over{false};
std::atomic<int> made{0}, overtaken{0}, wrong{0};

class Copy {
 public:
  Copy(VmState* vm, unsigned seed) : vm_(*vm), random_(seed), memory_(Memory(kPage)) {}

  void Follow() {
    for (const auto& [id, slot] : vm_.MemslotsSince(&generation_)) {
      slots_.erase(id);
      if (slot.region != nullptr) slots_[id] = slot;
    }
    std::vector<uint64_t> places;
    for (const auto& [id, slot] : slots_) places.push_back(slot.gpa);
    std::sort(places.begin(), places.end());
    if (std::adjacent_find(places.begin(), places.end()) != places.end()) ++wrong;
  }

  // Makes one change, or lets two slots change places. No error but EEXIST and ESTALE may come back.
  void Change() {
    if (Below(3) == 0) Follow();
    std::vector<Memslots::Change> changes{slots_.empty() || (slots_.size() < kMost && Below(3) == 0) ? New() : Known()};
    if (changes[0].id != Memslots::kNew && Below(4) == 0 && slots_.size() > 1) changes = Exchange();
    Memslots::Refusal refusal;
    const int error = changes.size() == 1 ? vm_.ChangeMemslot(&changes[0], &refusal) : vm_.ChangeMemslots(&changes, &refusal);
    if (error == 0)
      ++made;
    else if (error == -ESTALE)
      ++overtaken, Follow();
    else if (error != -EEXIST)
      ++wrong;
  }

  bool Equals(const std::vector<Memslots::Row>& rows) const {
    return rows.size() == slots_.size() && std::all_of(rows.begin(), rows.end(), [&](const Memslots::Row& row) {
             const auto found = slots_.find(row.id);
             return found != slots_.end() && found->second.changed == row.slot.changed && found->second.gpa == row.slot.gpa;
           });
  }

 private:
  size_t Below(size_t most) { return random_() % most; }
  Memslots::Change At(uint32_t id, uint64_t changed, uint64_t gpa, uint64_t size) {
    Memslots::Change change{id, changed, {}};
    change.after.gpa = gpa;
    change.after.size = size;
    return change;
  }
  Memslots::Change New() {
    auto change = At(Memslots::kNew, 0, Below(kPlaces) * kPage, kPage);
    change.after.region = memory_;
    return change;
  }
  std::map<uint32_t, Memslots::Slot>::iterator Any() { return std::next(slots_.begin(), static_cast<long>(Below(slots_.size()))); }
  Memslots::Change Known() {
    const auto& [id, slot] = *Any();
    return At(id, slot.changed, Below(kPlaces) * kPage, Below(4) == 0 ? 0 : kPage);
  }
  std::vector<Memslots::Change> Exchange() {
    const auto one = Any(), other = Any();
    if (one == other) return {At(one->first, one->second.changed, one->second.gpa, kPage)};
    return {At(one->first, one->second.changed, other->second.gpa, kPage), At(other->first, other->second.changed, one->second.gpa, kPage)};
  }

  VmState& vm_;
  std::mt19937 random_;
  std::shared_ptr<Region> memory_;
  std::map<uint32_t, Memslots::Slot> slots_;
  uint64_t generation_ = 0;
};

}  // namespace

int main(int count, char** arguments) {
  const int seconds = count > 1 ? atoi(arguments[1]) : 5;
  const OwnedFd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  Require(kvm.get() >= 0, "/dev/kvm");
  const int fd = ioctl(kvm.get(), KVM_CREATE_VM, 0);
  Require(fd >= 0, "KVM_CREATE_VM");
  VmState vm{OwnedFd(fd), static_cast<size_t>(ioctl(kvm.get(), KVM_GET_VCPU_MMAP_SIZE, 0))};
  std::vector<Copy> copies;
  for (unsigned number = 0; number < 4; ++number) copies.emplace_back(&vm, number);
  std::vector<std::thread> threads;
  for (Copy& copy : copies)
    threads.emplace_back([&copy] {
      while (!over) copy.Change();
    });
  std::this_thread::sleep_for(std::chrono::seconds(seconds));
  over = true;
  for (auto& thread : threads) thread.join();
  uint64_t generation = 0;
  auto rows = vm.MemslotsSince(&generation);
  std::erase_if(rows, [](const Memslots::Row& row) { return row.slot.region == nullptr; });
  for (Copy& copy : copies) {
    copy.Follow();
    if (!copy.Equals(rows)) ++wrong;
  }
  vm.End();
  generation = 0;
  for (const auto& row : vm.MemslotsSince(&generation))
    if (row.slot.region != nullptr) ++wrong;
  printf("%d changes, %d overtaken, %d wrong\n", made.load(), overtaken.load(), wrong.load());
  return wrong == 0 && made > 0 && overtaken > 0 ? 0 : 1;
}
