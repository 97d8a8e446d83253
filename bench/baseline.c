// The same work in C: one scenario per call, nanoseconds an operation on standard output.
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int kvm, vm, vcpu;
static struct kvm_run *run;
static char *memory;
enum { kMemory = 2 << 20, kPage = 4096 };

static double Now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e9 + now.tv_nsec;
}

static void Require(int holds, const char *what) {
  if (holds) return;
  perror(what);
  exit(1);
}

static void SetSlot(uint32_t slot, uint64_t gpa, uint64_t size) {
  struct kvm_userspace_memory_region region = {
      .slot = slot, .guest_phys_addr = gpa, .memory_size = size, .userspace_addr = size ? (uintptr_t)memory : 0};
  Require(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) == 0, "KVM_SET_USER_MEMORY_REGION");
}

static void Prepare(void) {
  kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  Require(kvm >= 0, "/dev/kvm");
  vm = ioctl(kvm, KVM_CREATE_VM, 0);
  Require(vm >= 0, "KVM_CREATE_VM");
  memory = mmap(NULL, kMemory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
  Require(vcpu >= 0, "KVM_CREATE_VCPU");
  run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
}

// 1: out %al, $0x10; jmp 1b, in real mode.
static double Pio(long count) {
  memcpy(memory + 0x1000, "\xe6\x10\xeb\xfc", 4);
  SetSlot(0, 0, kMemory);
  struct kvm_sregs special;
  ioctl(vcpu, KVM_GET_SREGS, &special);
  special.cs.base = 0;
  special.cs.selector = 0;
  ioctl(vcpu, KVM_SET_SREGS, &special);
  struct kvm_regs registers = {.rip = 0x1000, .rflags = 2};
  ioctl(vcpu, KVM_SET_REGS, &registers);
  volatile unsigned sum = 0;
  const double start = Now();
  for (long round = 0; round < count; ++round) {
    ioctl(vcpu, KVM_RUN, 0);
    Require(run->exit_reason == KVM_EXIT_IO, "an I/O exit");
    sum += run->io.port + *((uint8_t *)run + run->io.data_offset);
  }
  return (Now() - start) / count;
}

static double Registers(long count) {
  struct kvm_regs registers;
  const double start = Now();
  for (long round = 0; round < count; ++round) {
    ioctl(vcpu, KVM_GET_REGS, &registers);
    registers.rax += 1;
    ioctl(vcpu, KVM_SET_REGS, &registers);
  }
  return (Now() - start) / count;
}

// Create, move and delete one slot, with `present` others there.
static double Slots(long count, long present) {
  for (long slot = 0; slot < present; ++slot) SetSlot(slot, slot * 2 * kPage, kPage);
  const uint64_t free_gpa = (uint64_t)present * 2 * kPage;
  const double start = Now();
  for (long round = 0; round < count; ++round) {
    SetSlot(present, free_gpa, kPage);
    SetSlot(present, free_gpa + 16 * kPage, kPage);
    SetSlot(present, free_gpa + 16 * kPage, 0);
  }
  return (Now() - start) / count;
}

// 1 GiB each way, in pieces of 1 MiB; an operation is one pass over all of it.
static double Memory(int write) {
  const size_t size = 1 << 30, piece = 1 << 20;
  char *guest = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  char *own = malloc(piece);
  memset(own, 1, piece);
  const double start = Now();
  for (size_t offset = 0; offset < size; offset += piece) {
    if (write)
      memcpy(guest + offset, own, piece);
    else
      memcpy(own, guest + offset, piece);
    __asm__ volatile("" ::"r"(own) : "memory");
  }
  return Now() - start;
}

int main(int argc, char **argv) {
  Require(argc == 4, "usage: baseline SCENARIO COUNT PRESENT");
  const long count = atol(argv[2]), present = atol(argv[3]);
  double result = 0;
  Prepare();
  if (!strcmp(argv[1], "pio"))
    result = Pio(count);
  else if (!strcmp(argv[1], "registers"))
    result = Registers(count);
  else if (!strcmp(argv[1], "slots"))
    result = Slots(count, present);
  else if (!strcmp(argv[1], "read"))
    result = Memory(0);
  else if (!strcmp(argv[1], "write"))
    result = Memory(1);
  else
    Require(0, argv[1]);
  printf("%f\n", result);
  return 0;
}
