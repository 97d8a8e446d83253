// Opens a descriptor that reports page faults (userfaultfd(2)).
#pragma once

namespace node_kvm {

// Returns a nonblocking descriptor, or a negative errno.
int OpenUserfaultfd();

}  // namespace node_kvm
