#include "core/userfaultfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/linux_abi.h"
#include "core/owned_fd.h"

namespace node_kvm {

// The system call userfaultfd(2) may serve faults that happen in the kernel only with CAP_SYS_PTRACE or vm.unprivileged_userfaultfd; the
// device, which exists since Linux 6.1, serves them for anyone with the permission to open it.
int OpenUserfaultfd() {
  const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  if (fd >= 0) return fd;
  const int refused = -errno;
  const OwnedFd device(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (device.get() < 0) return refused;
  const int made = ioctl(device.get(), kUserfaultfdIocNew, O_CLOEXEC | O_NONBLOCK);
  return made < 0 ? -errno : made;
}

}  // namespace node_kvm
