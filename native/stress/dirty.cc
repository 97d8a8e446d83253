// A vCPU and another thread write while the dirty rings are harvested and this process's own writes are collected. At the end, the copy
// that was made of the reported pages equals the memory, byte for byte.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "core/dirty_rings.h"
#include "core/region.h"
#include "core/run_inline.h"
#include "stress/guest.h"

using node_kvm::DirtyRings;
using node_kvm::OwnedFd;
using node_kvm::Region;
using node_kvm::RunPage;
using node_kvm::WriteRecording;

namespace {

constexpr uint32_t kRingCapability = 192;
constexpr uint32_t kRingFull = 31;
constexpr size_t kPage = 4096;
constexpr size_t kSize = 1 << 20;
constexpr size_t kRingBytes = 65536 * sizeof(kvm_dirty_gfn);

// Real mode at 0x1000: adds one to a word of each page from 0x10000 to 0x50000, without end.
const unsigned char kCode[] = {
    0xb8, 0x00, 0x10,        // 1: mov $0x1000, %ax
    0x8e, 0xd8,              // 2: mov %ax, %ds
    0xff, 0x06, 0x08, 0x00,  // incw (8)
    0x05, 0x00, 0x01,        // add $0x100, %ax
    0x3d, 0x00, 0x50,        // cmp $0x5000, %ax
    0x72, 0xf2,              // jb 2b
    0xeb, 0xed,              // jmp 1b
};

}  // namespace

int main() {
  const OwnedFd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  Require(kvm.get() >= 0, "/dev/kvm");
  const OwnedFd vm(ioctl(kvm.get(), KVM_CREATE_VM, 0));
  DirtyRings rings;
  if (rings.Enable(vm.get(), kRingCapability, kRingBytes) != 0) {
    printf("no dirty ring here\n");
    return 0;
  }
  const auto memory = Memory(kSize);
  // The kernel copies memory that was once protected. So ThreadSanitizer does not see the copies: it need not report that guest memory is
  // read while it is written, which is intended.
  Require(memory->Protect(0, kSize, PROT_NONE) == 0 && memory->Protect(0, kSize, PROT_READ | PROT_WRITE) == 0, "mprotect");
  memory->Write(0x1000, kCode, sizeof kCode);
  kvm_userspace_memory_region slot{};
  slot.flags = KVM_MEM_LOG_DIRTY_PAGES;
  slot.memory_size = kSize;
  slot.userspace_addr = reinterpret_cast<uintptr_t>(memory->base());
  Require(ioctl(vm.get(), KVM_SET_USER_MEMORY_REGION, &slot) == 0, "KVM_SET_USER_MEMORY_REGION");
  const int fd = ioctl(vm.get(), KVM_CREATE_VCPU, 0);
  RunPage page;
  Require(page.Open(fd, static_cast<size_t>(ioctl(kvm.get(), KVM_GET_VCPU_MMAP_SIZE, 0))) == 0, "run page");
  Require(rings.Add(fd) == 0, "dirty ring");
  EnterRealMode(fd, 0x1000);

  WriteRecording recording(memory->writes(), 0, kSize / kPage);
  std::vector<char> copy(kSize);
  memory->Read(0, copy.data(), kSize);
  std::atomic<bool> stop{false};
  std::thread runner([&] {
    char area[RunPage::kAreaSize];
    while (!stop) {
      const int reason = page.Run(area, 20);
      if (reason != -ETIME && reason != static_cast<int>(kRingFull)) Require(false, "run");
    }
  });
  std::thread writer([&] {
    for (uint32_t round = 0; !stop; ++round) memory->Write(0x80000 + round % 0x70000, &round, sizeof round);
  });
  size_t told = 0;
  const auto round = [&] {
    std::set<uint64_t> dirty;
    const auto take = [&dirty](const std::vector<DirtyRings::Page>& pages) {
      for (const auto& entry : pages) dirty.insert(entry.offset);
    };
    Require(rings.Harvest(vm.get(), take) == 0, "KVM_RESET_DIRTY_RINGS");
    std::vector<uint64_t> own(recording.log().bytes() / sizeof(uint64_t));
    recording.log().Collect(reinterpret_cast<char*>(own.data()));
    for (size_t index = 0; index < kSize / kPage; ++index)
      if ((own[index / 64] >> (index % 64)) & 1) dirty.insert(index);
    for (const uint64_t index : dirty) memory->Read(index * kPage, copy.data() + index * kPage, kPage);
    told += dirty.size();
  };
  while (told < 10000) round();
  stop = true;
  runner.join();
  writer.join();
  round();
  size_t differing = 0;
  for (size_t index = 0; index < kSize / kPage; ++index)
    differing += memcmp(copy.data() + index * kPage, memory->base() + index * kPage, kPage) != 0;
  printf("%lu pages were reported, %lu differ in the end\n", static_cast<unsigned long>(told), static_cast<unsigned long>(differing));
  return differing == 0 && told > 0 ? 0 : 1;
}
