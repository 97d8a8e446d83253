// The reference for vCPUs beside Node, as functions inside the Node process: two threads that pass an eventfd to and fro through libuv, two
// threads that spin, and two vCPUs that run without the library.
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <node_api.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

static void Require(int holds, const char *what) {
  if (holds) return;
  perror(what);
  exit(1);
}

static double Now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e9 + now.tv_nsec;
}

// Ping-pong: a thread waits for the loop's answer before it writes again.
static struct {
  int ask, answer;
  long count;
  double nanoseconds;
  uv_poll_t poll;
  uv_async_t done;
  pthread_t thread;
  napi_env env;
  napi_deferred deferred;
} game;

static void OnAsk(uv_poll_t *poll, int status, int events) {
  uint64_t value;
  (void)poll, (void)status, (void)events;
  if (read(game.ask, &value, sizeof value) == sizeof value) Require(write(game.answer, &value, sizeof value) == sizeof value, "answer");
}

static void *Play(void *unused) {
  const double start = Now();
  for (long round = 0; round < game.count; round++) {
    uint64_t value = 1;
    Require(write(game.ask, &value, sizeof value) == sizeof value, "ask");
    Require(read(game.answer, &value, sizeof value) == sizeof value, "wait");
  }
  game.nanoseconds = (Now() - start) / game.count;
  uv_async_send(&game.done);
  return unused;
}

static void OnDone(uv_async_t *async) {
  (void)async;
  pthread_join(game.thread, NULL);
  uv_close((uv_handle_t *)&game.poll, NULL);
  uv_close((uv_handle_t *)&game.done, NULL);
  close(game.ask);
  close(game.answer);
  napi_handle_scope scope;
  napi_value value;
  napi_open_handle_scope(game.env, &scope);
  napi_create_double(game.env, game.nanoseconds, &value);
  napi_resolve_deferred(game.env, game.deferred, value);
  napi_close_handle_scope(game.env, scope);
}

static napi_value PingPong(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument, promise;
  uv_loop_t *loop;
  napi_get_cb_info(env, info, &count, &argument, NULL, NULL);
  napi_get_value_int64(env, argument, (int64_t *)&game.count);
  napi_get_uv_event_loop(env, &loop);
  napi_create_promise(env, &game.deferred, &promise);
  game.env = env;
  game.ask = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  game.answer = eventfd(0, EFD_CLOEXEC);
  uv_poll_init(loop, &game.poll, game.ask);
  uv_poll_start(&game.poll, UV_READABLE, OnAsk);
  uv_async_init(loop, &game.done, OnDone);
  pthread_create(&game.thread, NULL, Play, NULL);
  return promise;
}

// Two threads that do nothing but spin.
static volatile int spinning;
static pthread_t spinners[2];
static void *Spin(void *unused) {
  while (spinning) continue;
  return unused;
}
static napi_value SetSpinning(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  bool on;
  napi_get_cb_info(env, info, &count, &argument, NULL, NULL);
  napi_get_value_bool(env, argument, &on);
  spinning = on;
  for (int index = 0; index < 2; index++) on ? pthread_create(&spinners[index], NULL, Spin, NULL) : pthread_join(spinners[index], NULL);
  return NULL;
}

// The vCPUs of a VM that the library made, each run by a thread of C. A kick takes a vCPU out, and it enters again at once.
static int vm, run_size;
static struct {
  int fd;
  struct kvm_run *run;
  pid_t thread;
  pthread_t handle;
} vcpus[2];
static volatile int running;
static void Nothing(int signal) { (void)signal; }

static void *RunVcpu(void *argument) {
  const long index = (long)argument;
  vcpus[index].thread = (pid_t)syscall(SYS_gettid);
  while (running) {
    __atomic_store_n(&vcpus[index].run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    Require(ioctl(vcpus[index].fd, KVM_RUN, 0) == 0 || errno == EINTR, "KVM_RUN");
  }
  return NULL;
}
static void Kick(int index) {
  __atomic_store_n(&vcpus[index].run->immediate_exit, 1, __ATOMIC_SEQ_CST);
  syscall(SYS_tgkill, getpid(), vcpus[index].thread, SIGRTMAX - 1);
}
static void SetSlot(uint32_t slot, uint64_t gpa, uint64_t size, char *memory) {
  struct kvm_userspace_memory_region region = {
      .slot = slot, .guest_phys_addr = gpa, .memory_size = size, .userspace_addr = (uintptr_t)memory};
  Require(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) == 0, "KVM_SET_USER_MEMORY_REGION");
}

// Takes the descriptors of the VM and of two vCPUs.
static napi_value StartVcpus(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value arguments[3];
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
  napi_get_value_int32(env, arguments[0], &vm);
  struct sigaction action = {.sa_handler = Nothing};
  sigaction(SIGRTMAX - 1, &action, NULL);
  const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  close(kvm);
  running = 1;
  for (long index = 0; index < 2; index++) {
    napi_get_value_int32(env, arguments[1 + index], &vcpus[index].fd);
    vcpus[index].run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpus[index].fd, 0);
    Require(vcpus[index].run != MAP_FAILED, "the run page");
    vcpus[index].thread = 0;
    pthread_create(&vcpus[index].handle, NULL, RunVcpu, (void *)index);
    while (!*(volatile pid_t *)&vcpus[index].thread) usleep(100);
  }
  return NULL;
}
static napi_value StopVcpus(napi_env env, napi_callback_info info) {
  (void)env, (void)info;
  running = 0;
  for (int index = 0; index < 2; index++) {
    Kick(index);
    pthread_join(vcpus[index].handle, NULL);
    munmap(vcpus[index].run, run_size);
  }
  return NULL;
}

// Returns nanoseconds for two kicks and the two ioctls.
static napi_value Rebind(napi_env env, napi_callback_info info) {
  size_t argument_count = 1;
  napi_value argument, result;
  int64_t count;
  napi_get_cb_info(env, info, &argument_count, &argument, NULL, NULL);
  napi_get_value_int64(env, argument, &count);
  char *memory = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  // The library never gets to this slot's number.
  const uint32_t slot = 1000;
  SetSlot(slot, 0x100000, 4096, memory);
  const double start = Now();
  for (int64_t round = 0; round < count; round++) {
    Kick(0);
    Kick(1);
    SetSlot(slot, 0x100000, 0, NULL);
    SetSlot(slot, 0x100000, 4096, memory + 4096 * (round % 2));
  }
  const double nanoseconds = (Now() - start) / count;
  SetSlot(slot, 0x100000, 0, NULL);
  munmap(memory, 2 * 4096);
  napi_create_double(env, nanoseconds, &result);
  return result;
}

napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  const napi_property_descriptor functions[] = {
      {"pingPong", NULL, PingPong, NULL, NULL, NULL, napi_enumerable, NULL},
      {"setSpinning", NULL, SetSpinning, NULL, NULL, NULL, napi_enumerable, NULL},
      {"startVcpus", NULL, StartVcpus, NULL, NULL, NULL, napi_enumerable, NULL},
      {"stopVcpus", NULL, StopVcpus, NULL, NULL, NULL, napi_enumerable, NULL},
      {"rebind", NULL, Rebind, NULL, NULL, NULL, napi_enumerable, NULL},
  };
  napi_define_properties(env, exports, sizeof functions / sizeof *functions, functions);
  return exports;
}
