// A native thread wakes an event loop by one byte into a socket, whose other end Node watches as it watches any socket. Node then handles
// the hard cases: ref and unref, the end of a Worker with a byte in flight, the end of the process. A thread-safe function would be sound
// only with a fixed order of hooks at the end of an environment, and uv_poll would need the loop's own header, which Node-API does not
// promise.
#pragma once

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <map>

#include "core/owned_fd.h"

namespace node_kvm {

class Doorbell {
 public:
  // Returns the end to listen at, which the caller then owns, or a negative errno. There is one listener at a time: a new one replaces the
  // old.
  int Subscribe() {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) return -errno;
    ours_ = OwnedFd(pair[1]);
    return pair[0];
  }
  // It does no harm if nobody listens, or if a byte is waiting already.
  void Ring() {
    if (ours_.get() >= 0) send(ours_.get(), "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  }

 private:
  OwnedFd ours_;
};

// The listeners' ends that were given to an environment. worker.terminate() may come after Subscribe() returned a descriptor and before the
// runtime took it; this class closes such a descriptor at the end. By then the runtime has closed the descriptors that it took, and their
// numbers may belong to other files: the inode tells these apart.
class Listeners {
 public:
  Listeners() = default;
  Listeners(const Listeners&) = delete;
  Listeners& operator=(const Listeners&) = delete;
  ~Listeners() {
    for (const auto& [fd, inode] : given_)
      if (SocketAt(fd) == inode) close(fd);
  }
  int Give(int fd) {
    if (fd < 0) return fd;
    OwnedFd until_noted(fd);
    given_[fd] = SocketAt(fd);
    return until_noted.Release();
  }

 private:
  // Returns 0 when the descriptor is not a socket.
  static ino_t SocketAt(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 && S_ISSOCK(found.st_mode) ? found.st_ino : 0;
  }
  std::map<int, ino_t> given_;
};

}  // namespace node_kvm
