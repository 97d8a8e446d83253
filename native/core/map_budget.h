// How many mappings this process may still make. The kernel refuses more than vm.max_map_count (admin-guide/sysctl/vm.rst), to everybody:
// V8 ends the process when it can neither get memory nor protect its own, and no thread gets a stack. So the library stops before. No N-API
// here.
#pragma once

namespace node_kvm {

// Before a call that may add up to `most` mappings; splitting one in three adds two. Zero, or -EDQUOT.
int TakeMappings(long most);

}  // namespace node_kvm
