// How a native thread wakes an event loop: one byte into a socket whose other end Node watches as it watches any socket. Node then
// does what is hard: ref and unref, the end of a Worker with a byte in flight, the end of the process. A thread-safe function would need
// a hook order at the end of an environment to be sound, and uv_poll the loop's own header, which Node-API does not promise.
#pragma once

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <map>

#include "core/owned_fd.h"

namespace node_kvm {

class Doorbell {
 public:
  // The end to listen at, which the caller owns, or a negative errno. One listener at a time: a new one takes the bell over.
  int Subscribe() {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) return -errno;
    ours_ = OwnedFd(pair[1]);
    return pair[0];
  }
  // Nobody there, or a byte waiting already, is as good.
  void Ring() {
    if (ours_.get() >= 0) send(ours_.get(), "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  }

 private:
  OwnedFd ours_;
};

// The listeners' ends that an environment was given. worker.terminate() may fall between a Subscribe() and the runtime's taking the
// descriptor: what the runtime does not hold is closed at the end. The runtime has closed by then what it held, and its numbers may be
// others' already, whose inode is another.
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
  // 0 where there is none.
  static ino_t SocketAt(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 && S_ISSOCK(found.st_mode) ? found.st_ino : 0;
  }
  std::map<int, ino_t> given_;
};

}  // namespace node_kvm
