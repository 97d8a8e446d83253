// How many mappings this process may still make. The kernel refuses every mapping beyond vm.max_map_count (admin-guide/sysctl/vm.rst). Then
// V8 ends the process, because it can neither get memory nor protect its own, and no new thread gets a stack. So the library stops earlier.
// This file uses no N-API.
#pragma once

namespace node_kvm {

// To be called before a call that may add up to `most` mappings (to split one in three adds two). Returns zero or -EDQUOT.
int TakeMappings(long most);

}  // namespace node_kvm
