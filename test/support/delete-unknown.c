// Asks the kernel itself, in a VM made for this, to delete a memslot that does not exist (api.rst 4.35), and prints the errno. The
// library's own table would refuse the deletion earlier.
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

int main(void) {
  int kvm = open("/dev/kvm", O_RDWR);
  int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
  if (vm < 0) return perror("no VM"), 1;
  struct kvm_userspace_memory_region unknown = {.slot = 7};
  int result = ioctl(vm, KVM_SET_USER_MEMORY_REGION, &unknown);
  printf("%d\n", result < 0 ? errno : result);
  return 0;
}
