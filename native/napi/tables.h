// What TypeScript calls to read VMs from outside.
#pragma once

#include <napi.h>

namespace node_kvm {

// loadTables, readTables and joinTables, as functions of the module.
void DefineTables(Napi::Object exports);

}  // namespace node_kvm
