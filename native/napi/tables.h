// The functions by which TypeScript reads VMs from outside.
#pragma once

#include <napi.h>

namespace node_kvm {

// Defines loadTables, readTables and joinTables as functions of the module.
void DefineTables(Napi::Object exports);

}  // namespace node_kvm
