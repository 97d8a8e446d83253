/** The structures of <linux/kvm.h> and <asm/kvm.h> for x86-64. Documentation/virt/kvm/api.rst names each by its ioctl. */
import { address, array, bytes, i32, type StructOf, struct, u8, u16, u32, u64 } from './struct.js'

export const UserspaceMemoryRegion = struct('kvm_userspace_memory_region', {
  slot: u32,
  flags: u32,
  guest_phys_addr: address,
  memory_size: address,
  userspace_addr: address
})

/** The second form, for slots with a guest_memfd (api.rst 4.140); it begins as the first. */
export const UserspaceMemoryRegion2 = struct('kvm_userspace_memory_region2', {
  slot: u32,
  flags: u32,
  guest_phys_addr: address,
  memory_size: address,
  userspace_addr: address,
  guest_memfd_offset: address,
  guest_memfd: u32,
  pad1: u32,
  pad2: array(u64, 14)
})

export const CreateGuestMemfd = struct('kvm_create_guest_memfd', { size: address, flags: u64, reserved: array(u64, 6) })

/** General-purpose registers: KVM_GET_REGS, KVM_SET_REGS. */
export const Registers = struct('kvm_regs', {
  rax: u64,
  rbx: u64,
  rcx: u64,
  rdx: u64,
  rsi: u64,
  rdi: u64,
  rsp: u64,
  rbp: u64,
  r8: u64,
  r9: u64,
  r10: u64,
  r11: u64,
  r12: u64,
  r13: u64,
  r14: u64,
  r15: u64,
  rip: u64,
  rflags: u64
})
export type Registers = StructOf<typeof Registers>

/** A segment register, hidden part included (Intel SDM volume 3, 3.4.3). */
export const Segment = struct('kvm_segment', {
  base: u64,
  limit: u32,
  selector: u16,
  type: u8,
  present: u8,
  dpl: u8,
  db: u8,
  s: u8,
  l: u8,
  g: u8,
  avl: u8,
  unusable: u8,
  padding: u8
})
/** An instance of {@link Segment}. */
export type Segment = StructOf<typeof Segment>

export const DescriptorTable = struct('kvm_dtable', { base: u64, limit: u16, padding: array(u16, 3) })

/** Segments, descriptor tables, control registers: KVM_GET_SREGS, KVM_SET_SREGS. */
export const SpecialRegisters = struct('kvm_sregs', {
  cs: Segment,
  ds: Segment,
  es: Segment,
  fs: Segment,
  gs: Segment,
  ss: Segment,
  tr: Segment,
  ldt: Segment,
  gdt: DescriptorTable,
  idt: DescriptorTable,
  cr0: u64,
  cr2: u64,
  cr3: u64,
  cr4: u64,
  cr8: u64,
  efer: u64,
  apic_base: u64,
  interrupt_bitmap: array(u64, 4)
})
export type SpecialRegisters = StructOf<typeof SpecialRegisters>

export const Fpu = struct('kvm_fpu', {
  fpr: bytes(128),
  fcw: u16,
  fsw: u16,
  ftwx: u8,
  pad1: u8,
  last_opcode: u16,
  last_ip: u64,
  last_dp: u64,
  xmm: bytes(256),
  mxcsr: u32,
  pad2: u32
})

export const DebugRegisters = struct('kvm_debugregs', { db: array(u64, 4), dr6: u64, dr7: u64, flags: u64, reserved: array(u64, 9) })

export const MpState = struct('kvm_mp_state', { mp_state: u32 })

/** What waits to be delivered to a vCPU, and what holds it up: KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS (api.rst 4.31, which has the parts' fields). */
export const VcpuEvents = struct('kvm_vcpu_events', {
  exception: bytes(8),
  interrupt: bytes(4),
  nmi: bytes(4),
  sipi_vector: u32,
  flags: u32,
  smi: bytes(4),
  triple_fault: u8,
  reserved: bytes(26),
  exception_has_payload: u8,
  exception_payload: u64
})

export const Translation = struct('kvm_translation', {
  linear_address: u64,
  physical_address: u64,
  valid: u8,
  writeable: u8,
  usermode: u8,
  pad: bytes(5)
})

export const GuestDebugRegisters = struct('kvm_guest_debug_arch', { debugreg: array(u64, 8) })

/** Single steps and breakpoints: KVM_SET_GUEST_DEBUG. */
export const GuestDebug = struct('kvm_guest_debug', { control: u32, pad: u32, arch: GuestDebugRegisters })

/** One leaf, or sub-leaf, of CPUID: KVM_GET_SUPPORTED_CPUID, KVM_SET_CPUID2. */
export const CpuidEntry = struct('kvm_cpuid_entry2', {
  function: u32,
  index: u32,
  flags: u32,
  eax: u32,
  ebx: u32,
  ecx: u32,
  edx: u32,
  padding: array(u32, 3)
})
/** An instance of {@link CpuidEntry}. */
export type CpuidEntry = StructOf<typeof CpuidEntry>

export const MsrEntry = struct('kvm_msr_entry', { index: u32, reserved: u32, data: u64 })

/** slot in, bitmap pointer filled in by the add-on. */
export const DirtyLog = struct('kvm_dirty_log', { slot: u32, padding1: u32, dirty_bitmap: address })

/** What KVM_CLEAR_DIRTY_LOG protects again (api.rst 4.117). */
export const ClearDirtyLog = struct('kvm_clear_dirty_log', { slot: u32, num_pages: u32, first_page: address, dirty_bitmap: address })

/** An entry of a dirty ring (api.rst 8.29). */
export const DirtyGfn = struct('kvm_dirty_gfn', { flags: u32, slot: u32, offset: address })

/** A range whose writes are coalesced (api.rst 4.116); pio is 1 for ports. */
export const CoalescedZone = struct('kvm_coalesced_mmio_zone', { addr: address, size: u32, pio: u32 })

/** A coalesced write, as it lies in the ring. */
export const CoalescedEntry = struct('kvm_coalesced_mmio', { phys_addr: address, len: u32, pio: u32, data: bytes(8) })

/** A write that signals an eventfd (api.rst 4.59). */
export const IoEventfd = struct('kvm_ioeventfd', { datamatch: u64, addr: address, len: u32, fd: i32, flags: u32, pad: bytes(36) })

/** An eventfd that raises an interrupt (api.rst 4.75). */
export const Irqfd = struct('kvm_irqfd', { fd: u32, gsi: u32, flags: u32, resamplefd: u32, pad: bytes(16) })

/** The registers of one interrupt controller (api.rst 4.26). */
export const IrqchipState = struct('kvm_irqchip', { chip_id: u32, pad: u32, chip: bytes(512) })

export const IrqLevel = struct('kvm_irq_level', { irq: u32, level: u32 })

export const Msi = struct('kvm_msi', { address_lo: u32, address_hi: u32, data: u32, flags: u32, devid: u32, pad: bytes(12) })

/** Where a GSI leads (api.rst 4.52); `u` is one of the two structures below. */
export const IrqRoutingEntry = struct('kvm_irq_routing_entry', { gsi: u32, type: u32, flags: u32, pad: u32, u: bytes(32) })
export const IrqRoutingIrqchip = struct('kvm_irq_routing_irqchip', { irqchip: u32, pin: u32 })
export const IrqRoutingMsi = struct('kvm_irq_routing_msi', { address_lo: u32, address_hi: u32, data: u32, devid: u32 })

export const PitConfig = struct('kvm_pit_config', { flags: u32, pad: array(u32, 15) })

export const Interrupt = struct('kvm_interrupt', { irq: u32 })

/** The local APIC's registers, as they lie in its page (Intel SDM volume 3, table 12-1). */
export const LapicState = struct('kvm_lapic_state', { regs: bytes(1024) })

export const EnableCap = struct('kvm_enable_cap', { cap: u32, flags: u32, args: array(u64, 4), pad: bytes(64) })

export const StatsHeader = struct('kvm_stats_header', {
  flags: u32,
  name_size: u32,
  num_desc: u32,
  id_offset: u32,
  desc_offset: u32,
  data_offset: u32
})
