/** KVM_CAP_ numbers by name, from the kernel's uapi header up to 6.18; older hosts answer 0 for those they lack. */
export const capabilities = {
  IRQCHIP: 0,
  USER_MEMORY: 3,
  NR_VCPUS: 9,
  NR_MEMSLOTS: 10,
  COALESCED_MMIO: 15,
  SYNC_MMU: 16,
  IRQ_ROUTING: 25,
  IRQFD: 32,
  PIT2: 33,
  IOEVENTFD: 36,
  MAX_VCPUS: 66,
  SYNC_REGS: 74,
  SIGNAL_MSI: 77,
  READONLY_MEM: 81,
  IRQFD_RESAMPLE: 82,
  MAX_VCPU_ID: 128,
  IMMEDIATE_EXIT: 136,
  COALESCED_PIO: 162,
  MANUAL_DIRTY_LOG_PROTECT2: 168,
  DIRTY_LOG_RING: 192,
  BINARY_STATS_FD: 203,
  DISABLE_QUIRKS2: 213,
  DIRTY_LOG_RING_ACQ_REL: 223,
  USER_MEMORY2: 231,
  MEMORY_FAULT_INFO: 232,
  MEMORY_ATTRIBUTES: 233,
  GUEST_MEMFD: 234,
  PRE_FAULT_MEMORY: 236,
  GUEST_MEMFD_FLAGS: 244
} as const
/** A name in {@link capabilities}. */
export type CapabilityName = keyof typeof capabilities
