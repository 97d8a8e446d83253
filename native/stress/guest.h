// Shared by the stress programs: memory, and a vCPU about to run real-mode code.
#pragma once

#include <stdio.h>
#include <sys/ioctl.h>

#include <cstdlib>
#include <memory>

#include "core/kvm_abi.h"
#include "core/region.h"

inline void Require(bool holds, const char* what) {
  if (holds) return;
  perror(what);
  exit(1);
}

inline std::shared_ptr<node_kvm::Region> Memory(size_t size) {
  std::shared_ptr<node_kvm::Region> region;
  node_kvm::RegionRequest request;
  request.size = size;
  Require(node_kvm::Region::Map(request, &region) == 0, "memory");
  return region;
}

// Puts the vCPU behind `fd` into real mode, segment 0.
inline void EnterRealMode(int fd, uint16_t ip) {
  kvm_sregs special{};
  Require(ioctl(fd, KVM_GET_SREGS, &special) == 0, "KVM_GET_SREGS");
  special.cs.base = 0;
  special.cs.selector = 0;
  Require(ioctl(fd, KVM_SET_SREGS, &special) == 0, "KVM_SET_SREGS");
  kvm_regs registers{};
  registers.rip = ip;
  registers.rflags = 2;
  Require(ioctl(fd, KVM_SET_REGS, &registers) == 0, "KVM_SET_REGS");
}
