// Does the same work in C and prints nanoseconds for each operation: as a separate program, and (IN_NODE) as a function inside the Node
// process.
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

static int kvm, vm, vcpu, run_size;
static struct kvm_run *run;
static char *memory;
enum { kMemory = 2 << 20, kPage = 4096, kWarmUp = 500 };

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
  run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
}

static void Finish(void) {
  munmap(run, run_size);
  munmap(memory, kMemory);
  close(vcpu);
  close(vm);
  close(kvm);
}

// The cost of a VM's first exits is not measured.
static void Exits(long count) {
  volatile unsigned sum = 0;
  for (long round = 0; round < count; ++round) {
    ioctl(vcpu, KVM_RUN, 0);
    Require(run->exit_reason == KVM_EXIT_IO, "an I/O exit");
    sum += run->io.port + *((uint8_t *)run + run->io.data_offset);
  }
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
  Exits(kWarmUp);
  const double start = Now();
  Exits(count);
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

// Creates, moves and deletes one slot, while `present` others are there.
static void Changes(long count, long present) {
  const uint64_t free_gpa = (uint64_t)present * 2 * kPage;
  for (long round = 0; round < count; ++round) {
    SetSlot(present, free_gpa, kPage);
    SetSlot(present, free_gpa + 16 * kPage, kPage);
    SetSlot(present, free_gpa + 16 * kPage, 0);
  }
}

static double Slots(long count, long present) {
  for (long slot = 0; slot < present; ++slot) SetSlot(slot, slot * 2 * kPage, kPage);
  Changes(kWarmUp, present);
  const double start = Now();
  Changes(count, present);
  return (Now() - start) / count;
}

// Copies 1 GiB, in pieces of 1 MiB; an operation is one pass over all of it.
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
  const double taken = Now() - start;
  munmap(guest, size);
  free(own);
  return taken;
}

// The VM of one scenario stays for its next round, as in main.ts; slots begin anew.
static double Measure(const char *scenario, long count, long present) {
  static char prepared[32];
  if (strcmp(prepared, scenario) || !strcmp(scenario, "slots")) {
    if (*prepared) Finish();
    Prepare();
    snprintf(prepared, sizeof prepared, "%s", scenario);
  }
  double result = -1;
  if (!strcmp(scenario, "pio"))
    result = Pio(count);
  else if (!strcmp(scenario, "registers"))
    result = Registers(count);
  else if (!strcmp(scenario, "slots"))
    result = Slots(count, present);
  else if (!strcmp(scenario, "read"))
    result = Memory(0);
  else if (!strcmp(scenario, "write"))
    result = Memory(1);
  Require(result >= 0, scenario);
  return result;
}

#ifdef IN_NODE
// The same loops run inside the Node process: the remaining difference to node-kvm is the library's, not the process's.
#include <node_api.h>

static napi_value Call(napi_env env, napi_callback_info info) {
  napi_value arguments[3], result;
  size_t given = 3, length;
  char scenario[32];
  int64_t count = 0, present = 0;
  napi_get_cb_info(env, info, &given, arguments, NULL, NULL);
  napi_get_value_string_utf8(env, arguments[0], scenario, sizeof scenario, &length);
  napi_get_value_int64(env, arguments[1], &count);
  napi_get_value_int64(env, arguments[2], &present);
  napi_create_double(env, Measure(scenario, count, present), &result);
  return result;
}

NAPI_MODULE_INIT() {
  napi_value function;
  napi_create_function(env, "measure", NAPI_AUTO_LENGTH, Call, NULL, &function);
  return function;
}
#else
int main(int argc, char **argv) {
  Require(argc == 4, "usage: baseline SCENARIO COUNT PRESENT");
  printf("%f\n", Measure(argv[1], atol(argv[2]), atol(argv[3])));
  return 0;
}
#endif
