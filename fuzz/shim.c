/*
 * Fails the n-th call of a C function that node_kvm.node makes, and no other, since V8 and libuv must not notice. LD_PRELOAD loads it. The
 * program under test writes the order into the file that NODE_KVM_FUZZ_SHIM names, which is mapped here.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct order {
  int32_t countdown; /* 0: nothing is to fail */
  int32_t error;
  char name[24];
};

static struct order none;
static struct order *order = &none;
/* backtrace() itself may call an interposed function. */
static __thread int looking;

__attribute__((constructor)) static void prepare(void) {
  const char *path = getenv("NODE_KVM_FUZZ_SHIM");
  int fd = path == NULL ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *at = (void *)syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  syscall(SYS_close, fd);
  /* The first backtrace() loads libgcc. */
  void *frames[2];
  backtrace(frames, 2);
  if (at != MAP_FAILED) order = at;
}

/* Between the add-on and this file may be the C++ library (std::thread, operator new) and AddressSanitizer. */
static int by_the_addon(void) {
  void *frames[12];
  int count = backtrace(frames, 12);
  Dl_info own;
  dladdr(&order, &own);
  for (int at = 1; at < count; at++) {
    Dl_info found;
    if (dladdr(frames[at], &found) == 0 || found.dli_fname == NULL) return 0;
    const char *name = strrchr(found.dli_fname, '/');
    name = name == NULL ? found.dli_fname : name + 1;
    if (strcmp(name, "node_kvm.node") == 0 || strcmp(name, "node-kvm.node") == 0) return 1;
    if (strncmp(name, "libstdc++", 9) != 0 && strncmp(name, "libasan", 7) != 0 && found.dli_fbase != own.dli_fbase) return 0;
  }
  return 0;
}

/* The errno that this call is to fail with, or 0. */
static int failure(const char *name) {
  if (__atomic_load_n(&order->countdown, __ATOMIC_ACQUIRE) <= 0 || looking || strcmp(order->name, name) != 0) return 0;
  looking = 1;
  int error = by_the_addon() && __atomic_sub_fetch(&order->countdown, 1, __ATOMIC_ACQ_REL) == 0 ? order->error : 0;
  looking = 0;
  return error;
}

static void *real(const char *name, void **known) {
  void *at = __atomic_load_n(known, __ATOMIC_RELAXED);
  if (at == NULL) __atomic_store_n(known, at = dlsym(RTLD_NEXT, name), __ATOMIC_RELAXED);
  return at;
}

/* The function has another name in C, since the headers declare some as variadic. The linker knows it by `symbol`, and an order by `name`;
 * `fail` is the statement that it runs with `error`. */
#define INTERPOSE(type, symbol, name, fail, parameters, arguments) \
  type failing_##symbol parameters __asm__(#symbol);               \
  type failing_##symbol parameters {                               \
    static void *known;                                            \
    int error = failure(name);                                     \
    if (error != 0) fail;                                          \
    return ((type(*) parameters)real(#symbol, &known))arguments;   \
  }
#define SETS_ERRNO(type)       \
  {                            \
    errno = error;             \
    return (type)(intptr_t)-1; \
  }
/* A variadic function passes on all six words, as syscall(2) takes them. */
#define WORDS long a, long b, long c, long d, long e, long f

INTERPOSE(int, pthread_create, "pthread_create", return error,
          (pthread_t * thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument),
          (thread, attributes, start, argument))
INTERPOSE(void *, mmap, "mmap", SETS_ERRNO(void *), (void *at, size_t size, int protection, int flags, int fd, off_t offset),
          (at, size, protection, flags, fd, offset))
INTERPOSE(void *, mmap64, "mmap", SETS_ERRNO(void *), (void *at, size_t size, int protection, int flags, int fd, off64_t offset),
          (at, size, protection, flags, fd, offset))
INTERPOSE(int, open, "open", SETS_ERRNO(int), (const char *path, int flags, mode_t mode), (path, flags, mode))
INTERPOSE(int, open64, "open", SETS_ERRNO(int), (const char *path, int flags, mode_t mode), (path, flags, mode))
INTERPOSE(int, ioctl, "ioctl", SETS_ERRNO(int), (int fd, unsigned long request, long argument), (fd, request, argument))
INTERPOSE(int, eventfd, "eventfd", SETS_ERRNO(int), (unsigned count, int flags), (count, flags))
INTERPOSE(int, socketpair, "socketpair", SETS_ERRNO(int), (int domain, int type, int protocol, int pair[2]), (domain, type, protocol, pair))
INTERPOSE(int, epoll_create1, "epoll_create1", SETS_ERRNO(int), (int flags), (flags))
INTERPOSE(int, epoll_ctl, "epoll_ctl", SETS_ERRNO(int), (int epoll, int operation, int fd, void *event), (epoll, operation, fd, event))
INTERPOSE(int, timer_create, "timer_create", SETS_ERRNO(int), (clockid_t clock, struct sigevent *event, timer_t *timer),
          (clock, event, timer))
INTERPOSE(int, memfd_create, "memfd_create", SETS_ERRNO(int), (const char *name, unsigned flags), (name, flags))
INTERPOSE(int, ftruncate64, "ftruncate", SETS_ERRNO(int), (int fd, off64_t size), (fd, size))
INTERPOSE(int, fallocate64, "fallocate", SETS_ERRNO(int), (int fd, int mode, off64_t offset, off64_t size), (fd, mode, offset, size))
INTERPOSE(int, mprotect, "mprotect", SETS_ERRNO(int), (void *at, size_t size, int protection), (at, size, protection))
INTERPOSE(int, madvise, "madvise", SETS_ERRNO(int), (void *at, size_t size, int advice), (at, size, advice))
INTERPOSE(int, mincore, "mincore", SETS_ERRNO(int), (void *at, size_t size, unsigned char *present), (at, size, present))
INTERPOSE(void *, mremap, "mremap", SETS_ERRNO(void *), (void *at, size_t size, size_t wanted, int flags, void *place),
          (at, size, wanted, flags, place))
INTERPOSE(ssize_t, pread64, "pread", SETS_ERRNO(ssize_t), (int fd, void *to, size_t size, off64_t offset), (fd, to, size, offset))
INTERPOSE(
    FILE *, fopen64, "fopen",
    {
      errno = error;
      return NULL;
    },
    (const char *path, const char *mode), (path, mode))
INTERPOSE(long, syscall, "syscall", SETS_ERRNO(long), (long number, WORDS), (number, a, b, c, d, e, f))

void *__libc_malloc(size_t size);
void *malloc(size_t size) {
  int error = failure("malloc");
  if (error == 0) return __libc_malloc(size);
  errno = ENOMEM;
  return NULL;
}
