// Several threads at once touch missing pages, which are given back and touched again, and a service ends meanwhile: every word that they
// read is the source's, and no thread waits for ever.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "core/region.h"
#include "core/run_inline.h"
#include "stress/guest.h"

using node_kvm::OwnedFd;
using node_kvm::Region;
using node_kvm::RunPage;
using node_kvm::UserFaults;
using node_kvm::UserFaultsRequest;

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kPages = 256;

uint64_t WordOf(uint64_t page) { return page * 0x10001 + 1; }

UserFaultsRequest FromFile() {
  UserFaultsRequest request;
  request.source = OwnedFd(memfd_create("source", MFD_CLOEXEC));
  std::vector<uint64_t> words(kPage / sizeof(uint64_t));
  for (size_t page = 0; page < kPages; ++page) {
    words.assign(words.size(), WordOf(page));
    if (write(request.source.get(), words.data(), kPage) != static_cast<ssize_t>(kPage)) return {};
  }
  return request;
}

// Reads as the library does, or as a guest would: with a fault that the kernel hands to the service.
bool Check(Region* region, size_t page, bool faulting) {
  uint64_t word = 0;
  const size_t offset = page * kPage;
  if (faulting)
    word = __atomic_load_n(reinterpret_cast<uint64_t*>(region->base() + offset), __ATOMIC_RELAXED);
  else if (region->Read(offset, &word, sizeof word) != 0)
    return false;
  return word == WordOf(page);
}

int FromNative() {
  const auto region = Memory(kPages * kPage);
  std::shared_ptr<UserFaults> faults;
  if (const int error = region->ServeFaults(FromFile(), &faults); error != 0) return error == -EPERM ? 0 : 1;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < 4; ++number)
    threads.emplace_back([&, number] {
      for (size_t round = 0; round < 4 * kPages; ++round) {
        const size_t page = (round * 7 + static_cast<size_t>(number) * 13) % kPages;
        if (!Check(region.get(), page, number % 2 == 0)) ++wrong;
        if (round % 5 == 0) region->Advise(page * kPage, kPage, MADV_DONTNEED);
      }
    });
  for (auto& thread : threads) thread.join();
  printf("served by a thread: %lu pages, %d wrong\n", static_cast<unsigned long>(faults->served()), wrong.load());
  return wrong;
}

// This thread answers the faults of other threads, half of them twice, and then is gone.
int FromHere() {
  const auto region = Memory(kPages * kPage);
  std::shared_ptr<UserFaults> faults;
  if (region->ServeFaults({}, &faults) != 0) return 0;
  std::atomic<int> wrong{0};
  std::atomic<int> running{3};
  std::vector<std::thread> threads;
  for (size_t number = 0; number < 3; ++number)
    threads.emplace_back([&, number] {
      for (size_t page = 0; page < kPages; ++page)
        if (!Check(region.get(), (page + number * 50) % kPages, true)) ++wrong;
      --running;
    });
  std::vector<uint64_t> words(kPage / sizeof(uint64_t));
  while (running > 0)
    for (const auto& [offset, write] : faults->Take()) {
      words.assign(words.size(), WordOf(offset / kPage));
      if (faults->Serve(offset, reinterpret_cast<char*>(words.data()), kPage) != 0) ++wrong;
      if (offset % 2 == 0 && faults->Serve(offset, reinterpret_cast<char*>(words.data()), kPage) != 0) ++wrong;
    }
  for (auto& thread : threads) thread.join();
  // A touch that nobody answers any more ends when the service does.
  region->Advise(0, kPage, MADV_DONTNEED);
  std::thread waiting([&] { (void)__atomic_load_n(region->base(), __ATOMIC_RELAXED); });
  std::this_thread::sleep_for(std::chrono::milliseconds(120));
  region->EndFaults(faults.get());
  faults.reset();
  waiting.join();
  printf("served from here: %d wrong\n", wrong.load());
  return wrong;
}

// A vCPU in real mode at 0x1000 that reads a word at 0x20000 and halts.
const unsigned char kCode[] = {0xb8, 0x00, 0x20, 0x8e, 0xd8, 0xa1, 0x00, 0x00, 0xf4};

void Place(int vcpu) {
  kvm_sregs special{};
  ioctl(vcpu, KVM_GET_SREGS, &special);
  special.cs.base = 0;
  special.cs.selector = 0;
  ioctl(vcpu, KVM_SET_SREGS, &special);
  kvm_regs registers{};
  registers.rip = 0x1000;
  registers.rflags = 2;
  ioctl(vcpu, KVM_SET_REGS, &registers);
}

// Gives the access of kMmioNotAwaited no data, whatever it would have read.
void Forgo(RunPage* page) {
  page->Acquire();
  page->AccessMade(true);
  page->Release();
}

// The thread that serves a vCPU's missing page first changes the memslots, and so waits until that vCPU leaves KVM. Then it runs the vCPU
// itself, which would wait for the page.
int FromHereForGuest() {
  const auto region = Memory(kPages * kPage);
  region->Write(0x1000, kCode, sizeof kCode);
  std::shared_ptr<UserFaults> faults;
  UserFaultsRequest request;
  request.server = node_kvm::ServingThread::OfThisThread();
  if (region->ServeFaults(std::move(request), &faults) != 0) return 0;
  const OwnedFd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  const OwnedFd vm(ioctl(kvm.get(), KVM_CREATE_VM, 0));
  kvm_userspace_memory_region slot{};
  slot.memory_size = region->size();
  slot.userspace_addr = reinterpret_cast<uintptr_t>(region->base());
  std::atomic<int> wrong{ioctl(vm.get(), KVM_SET_USER_MEMORY_REGION, &slot) != 0};
  RunPage page;
  wrong += page.Open(ioctl(vm.get(), KVM_CREATE_VCPU, 0), static_cast<size_t>(ioctl(kvm.get(), KVM_GET_VCPU_MMAP_SIZE, 0))) != 0;
  std::vector<char> content(kPage, 7);
  const auto serve = [&] {
    for (const auto& [offset, write] : faults->Take()) wrong += faults->Serve(offset, content.data(), kPage) != 0;
  };
  for (int round = 0; round < 20; ++round) {
    region->Advise(0x20000, kPage, MADV_DONTNEED);
    Place(page.fd());
    std::atomic<bool> halted{false};
    std::thread runner([&] {
      char area[RunPage::kAreaSize];
      // Where KVM emulates real mode, the access may come back as MMIO instead; then the vCPU runs once more.
      int reason;
      while ((reason = page.Run(area, 20000)) == KVM_EXIT_MMIO || reason == RunPage::kMmioNotAwaited) {
        Forgo(&page);
        Place(page.fd());
      }
      wrong += reason != KVM_EXIT_HLT;
      halted = true;
    });
    kvm_userspace_memory_region other = slot;
    other.slot = 1;
    other.guest_phys_addr = 1 << 24;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    {
      const node_kvm::VcpuBarrier barrier;
      wrong += ioctl(vm.get(), KVM_SET_USER_MEMORY_REGION, &other) != 0;
      other.memory_size = 0;
      wrong += ioctl(vm.get(), KVM_SET_USER_MEMORY_REGION, &other) != 0;
    }
    while (!halted) serve();
    runner.join();
    serve();
  }
  region->Advise(0x20000, kPage, MADV_DONTNEED);
  Place(page.fd());
  char area[RunPage::kAreaSize];
  const int own = page.Run(area, -1);
  Forgo(&page);
  serve();
  const int next = page.Run(area, -1);
  // ThreadSanitizer delivers a signal only later.
  wrong += (own != -EDEADLK && own != RunPage::kMmioNotAwaited) || next != KVM_EXIT_HLT;
  printf("served from here for a vCPU: %d wrong\n", wrong.load());
  return wrong;
}

}  // namespace

int main() { return FromNative() == 0 && FromHere() == 0 && FromHereForGuest() == 0 ? 0 : 1; }
