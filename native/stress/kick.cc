// Kicks a real vCPU, which spins in the guest, at random moments. Each kick must end a run: none may be lost.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <thread>

#include "core/region.h"
#include "core/run_inline.h"
#include "stress/guest.h"

using node_kvm::OwnedFd;
using node_kvm::Region;
using node_kvm::RunPage;

namespace {

// A VM whose only instruction is a jump to itself, in real mode at address 0x1000.
std::unique_ptr<RunPage> SpinningVcpu(const OwnedFd& kvm, const OwnedFd& vm, const Region& memory) {
  kvm_userspace_memory_region slot{};
  slot.memory_size = memory.size();
  slot.userspace_addr = reinterpret_cast<uintptr_t>(memory.base());
  Require(ioctl(vm.get(), KVM_SET_USER_MEMORY_REGION, &slot) == 0, "KVM_SET_USER_MEMORY_REGION");
  const int fd = ioctl(vm.get(), KVM_CREATE_VCPU, 0);
  Require(fd >= 0, "KVM_CREATE_VCPU");
  auto page = std::make_unique<RunPage>();
  Require(page->Open(fd, static_cast<size_t>(ioctl(kvm.get(), KVM_GET_VCPU_MMAP_SIZE, 0))) == 0, "run page");
  EnterRealMode(page->fd(), 0x1000);
  return page;
}

}  // namespace

int main(int count, char** arguments) {
  const int kicks = count > 1 ? atoi(arguments[1]) : 20000;
  const OwnedFd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  Require(kvm.get() >= 0, "/dev/kvm");
  const OwnedFd vm(ioctl(kvm.get(), KVM_CREATE_VM, 0));
  Require(vm.get() >= 0, "KVM_CREATE_VM");
  const auto memory = Memory(2 << 20);
  const char spin[] = {'\xeb', '\xfe'};
  memory->Write(0x1000, spin, sizeof spin);
  const auto page = SpinningVcpu(kvm, vm, *memory);

  std::atomic<int> answered{0};
  std::atomic<bool> failed{false};
  std::thread runner([&] {
    char area[RunPage::kAreaSize];
    for (int run = 0; run < kicks; ++run) {
      // The time limit is the alarm: a lost kick would leave the guest spinning.
      const int result = page->Run(area, 10000);
      if (result != -EINTR) {
        fprintf(stderr, "run %d gave %d: a kick was lost\n", run, result);
        failed = true;
        return;
      }
      ++answered;
    }
  });
  std::minstd_rand random(42);
  for (int kick = 0; kick < kicks && !failed; ++kick) {
    // Kicks come one at a time, at any moment of the run: before it, on the way in, within, on the way out.
    for (unsigned pause = random() % 2000; pause > 0; --pause) std::atomic_signal_fence(std::memory_order_seq_cst);
    page->Kick();
    while (answered <= kick && !failed) std::this_thread::yield();
  }
  runner.join();
  printf("%d kicks, %d ended their run\n", kicks, answered.load());
  return failed || answered != kicks ? 1 : 0;
}
