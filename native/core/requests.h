// Lists the KVM requests that go through ioctl() and ioctlCounted(), with the sizes of their arguments. A request's number holds only the
// size of a structure. It does not say that an array follows the structure, with its length in it, nor that the structure holds an address.
// Every request that is not listed here is refused: it has a method of its own, or nobody uses it yet.
#pragma once

#include <cstddef>

#include "core/kvm_abi.h"

namespace node_kvm {

struct RequestLayout {
  enum Kind {
    kRefused,
    kPlain,    // a structure of the size in the number; if that is 0, a number or nothing
    kCounted,  // begins with a structure of the size in the number, whose first u32 counts the entries behind it
  };
  Kind kind = kRefused;
  size_t entry = 0;
};

constexpr RequestLayout LayoutOf(unsigned long request) {
  switch (request) {
    case KVM_GET_API_VERSION:
    case KVM_CHECK_EXTENSION:
    case KVM_GET_VCPU_MMAP_SIZE:
    case KVM_SET_TSS_ADDR:
    case KVM_SET_IDENTITY_MAP_ADDR:
    case KVM_CREATE_IRQCHIP:
    case KVM_CREATE_PIT2:
    case KVM_GET_IRQCHIP:
    case KVM_IRQ_LINE:
    case KVM_IRQFD:
    case KVM_SIGNAL_MSI:
    case KVM_ENABLE_CAP:
    case KVM_GET_REGS:
    case KVM_SET_REGS:
    case KVM_GET_SREGS:
    case KVM_SET_SREGS:
    case KVM_GET_FPU:
    case KVM_SET_FPU:
    case KVM_GET_DEBUGREGS:
    case KVM_SET_DEBUGREGS:
    case KVM_GET_MP_STATE:
    case KVM_SET_MP_STATE:
    case KVM_GET_VCPU_EVENTS:
    case KVM_SET_VCPU_EVENTS:
    case KVM_GET_LAPIC:
    case KVM_SET_LAPIC:
    case KVM_SET_GUEST_DEBUG:
    case KVM_TRANSLATE:
    case KVM_INTERRUPT:
    case KVM_NMI:
      return {RequestLayout::kPlain};
    case KVM_GET_SUPPORTED_CPUID:
    case KVM_SET_CPUID2:
    case KVM_GET_CPUID2:
      return {RequestLayout::kCounted, sizeof(kvm_cpuid_entry2)};
    case KVM_GET_MSR_INDEX_LIST:
      return {RequestLayout::kCounted, sizeof(uint32_t)};
    case KVM_GET_MSRS:
    case KVM_SET_MSRS:
      return {RequestLayout::kCounted, sizeof(kvm_msr_entry)};
    case KVM_SET_GSI_ROUTING:
      return {RequestLayout::kCounted, sizeof(kvm_irq_routing_entry)};
    case KVM_SET_SIGNAL_MASK:
      return {RequestLayout::kCounted, 1};
    default:
      return {};
  }
}

// For one capability, the arguments of KVM_ENABLE_CAP are addresses at which to store a version (api.rst 7,
// KVM_CAP_HYPERV_ENLIGHTENED_VMCS).
constexpr bool TakesAddress(const kvm_enable_cap& enabled) {
  return enabled.cap == KVM_CAP_HYPERV_ENLIGHTENED_VMCS && enabled.args[0] != 0;
}

}  // namespace node_kvm
