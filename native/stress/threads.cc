// Tests how the vCPUs' own threads, their kicks, parks, nudges and ends affect each other: two guests read one word each, slots change
// places under them, one thread kicks them, another nudges them, and threads begin and end all the while.
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "core/run_inline.h"
#include "core/vcpu_thread.h"
#include "core/vm_state.h"
#include "stress/guest.h"

using namespace node_kvm;

namespace {

// A change for a new slot, or for the slot that `made` recorded.
Memslots::Change Place(const Memslots::Change& made, uint64_t gpa, const std::shared_ptr<Region>& region) {
  Memslots::Slot after;
  after.region = region;
  after.gpa = gpa;
  after.size = region ? region->size() : 0;
  return {made.id, made.computed_from, after};
}

// In real mode, at `ip` of segment 0: reads the word at `address` for ever; the word must be 1 or 2.
void Program(Region* code, uint16_t ip, uint16_t address) {
  const unsigned char source[] = {0xfb,  // sti
                                  0xa1,
                                  static_cast<unsigned char>(address),
                                  static_cast<unsigned char>(address >> 8),  // 1: mov (address), %ax
                                  0x48,                                      // dec %ax
                                  0xa9,
                                  0xfe,
                                  0xff,  // test $0xfffe, %ax
                                  0x74,
                                  0xf7,  // jz 1b
                                  0xe6,
                                  0x11,
                                  0xeb,
                                  0xf3};  // out %al, $0x11; jmp 1b
  code->Write(ip, source, sizeof source);
}

std::atomic<bool> over{false};
std::atomic<int> wrong{0};
std::atomic<int> kicks{0};

// Runs the lives of a vCPU's thread one after the other.
void Drive(const std::shared_ptr<RunPage>& page, int number) {
  for (int life = 0; !over; ++life) {
    std::atomic<int> notified{0};
    VcpuThread thread(page, number, {}, [&] { ++notified; });
    char area[RunPage::kAreaSize] = {};
    Require(thread.Go(area), "go");
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(life % 20);
    while (std::chrono::steady_clock::now() < end && !over) {
      int result;
      if (!thread.Take(area, &result)) {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
        continue;
      }
      // -EINTR is a kick. With any other result the guest read a word that was never there, or from an address that did not exist.
      if (result == -EINTR)
        ++kicks;
      else
        ++wrong;
      Require(thread.Go(area), "go on");
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  const int seconds = count > 1 ? atoi(arguments[1]) : 10;
  const OwnedFd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  Require(kvm.get() >= 0, "/dev/kvm");
  const int fd = ioctl(kvm.get(), KVM_CREATE_VM, 0);
  Require(fd >= 0, "KVM_CREATE_VM");
  VmState vm{OwnedFd(fd), static_cast<size_t>(ioctl(kvm.get(), KVM_GET_VCPU_MMAP_SIZE, 0))};
  const auto code = Memory(0x1000), one = Memory(0x1000), other = Memory(0x1000);
  const uint16_t word_one = 1, word_other = 2;
  one->Write(0, &word_one, 2);
  other->Write(0, &word_other, 2);
  Program(code.get(), 0x100, 0x2000);
  Program(code.get(), 0x200, 0x4000);
  const Memslots::Change none{Memslots::kNew, 0, {}};
  Memslots::Refusal refusal;
  std::vector<Memslots::Change> slots{Place(none, 0, code), Place(none, 0x2000, one), Place(none, 0x4000, other)};
  Require(vm.ChangeMemslots(&slots, &refusal) == 0, "slots");
  std::shared_ptr<RunPage> pages[2];
  for (uint32_t id = 0; id < 2; ++id) {
    Require(vm.CreateVcpu(id, &pages[id]) == 0, "KVM_CREATE_VCPU");
    EnterRealMode(pages[id]->fd(), id == 0 ? 0x100 : 0x200);
  }
  std::thread drivers[] = {std::thread(Drive, pages[0], 0), std::thread(Drive, pages[1], 1)};
  std::thread kicker([&] {
    while (!over) {
      pages[0]->Kick();
      pages[1]->NudgeNext();
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  int moves = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  for (; std::chrono::steady_clock::now() < end; ++moves) {
    const bool swapped = moves % 2 == 0;
    std::vector<Memslots::Change> swap{Place(slots[1], swapped ? 0x4000 : 0x2000, nullptr),
                                       Place(slots[2], swapped ? 0x2000 : 0x4000, nullptr)};
    swap[0].after.size = swap[1].after.size = 0x1000;
    Require(vm.ChangeMemslots(&swap, &refusal) == 0, "a transaction");
    std::copy(swap.begin(), swap.end(), slots.begin() + 1);
    // This transaction fails half-way: at 0 there is no room for slot 2.
    std::vector<Memslots::Change> impossible{Place(slots[1], 0, nullptr), Place(slots[2], 0, other)};
    Require(vm.ChangeMemslots(&impossible, &refusal) == -EEXIST && refusal.change == 1 && refusal.id == slots[0].id,
            "a transaction that must fail");
  }
  over = true;
  for (auto& driver : drivers) driver.join();
  kicker.join();
  vm.End();
  char area[RunPage::kAreaSize] = {};
  Require(pages[0]->Run(area, -1) == -EBADF, "a run after the end");
  printf("%d transactions, %d kicks answered, %d wrong\n", moves, kicks.load(), wrong.load());
  return wrong == 0 && moves > 0 && kicks > 0 ? 0 : 1;
}
