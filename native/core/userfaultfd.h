// A descriptor that tells of page faults (userfaultfd(2)).
#pragma once

namespace node_kvm {

// A nonblocking descriptor, or a negative errno.
int OpenUserfaultfd();

}  // namespace node_kvm
