// How a native thread wakes an event loop: one byte into a socket whose other end Node watches as it watches any socket. Node then
// does what is hard: ref and unref, the end of a Worker with a byte in flight, the end of the process. A thread-safe function would need
// a hook order at the end of an environment to be sound, and uv_poll the loop's own header, which Node-API does not promise.
#pragma once

#include <errno.h>
#include <sys/socket.h>

#include "owned_fd.h"

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

}  // namespace node_kvm
