// A file descriptor with one owner.
#pragma once

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <utility>

namespace node_kvm {

class OwnedFd {
 public:
  OwnedFd() = default;
  explicit OwnedFd(int fd) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  OwnedFd(const OwnedFd&) = delete;
  OwnedFd& operator=(const OwnedFd&) = delete;
  ~OwnedFd() { Reset(); }

  int get() const { return fd_; }
  // The caller owns the descriptor from now on.
  int Release() { return std::exchange(fd_, -1); }
  void Reset() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

// Calls ioctl(2), again if a signal interrupted it: KVM_CREATE_VM then fails with EINTR, and a runtime uses signals of its own. Not for
// KVM_RUN.
template <typename Argument>
int IoctlUninterrupted(int fd, unsigned long request, Argument argument) {
  int result;
  do {
    result = ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return result;
}

}  // namespace node_kvm
