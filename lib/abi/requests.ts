/**
 * ioctl request numbers, made from the schemas (asm-generic/ioctl.h), so that they depend neither on the age of the
 * distribution's header nor on a table copied by hand.
 */
import {
  ClearDirtyLog,
  CoalescedZone,
  CpuidEntry,
  CreateGuestMemfd,
  DebugRegisters,
  DirtyLog,
  EnableCap,
  Fpu,
  GuestDebug,
  Interrupt,
  IoEventfd,
  IrqchipState,
  Irqfd,
  IrqLevel,
  LapicState,
  MpState,
  Msi,
  MsrEntry,
  PitConfig,
  Registers,
  SpecialRegisters,
  Translation,
  UserspaceMemoryRegion,
  UserspaceMemoryRegion2,
  VcpuEvents
} from './structures.js'

const KVMIO = 0xae

/** One request: its number, and the name under which api.rst documents it. */
export interface Ioctl {
  readonly name: string
  readonly number: number
  /** Bytes the kernel reads or writes for certain; requests with a counted array take more. */
  readonly size: number
}

function request(name: string, direction: 0 | 1 | 2 | 3, number: number, size: number): Ioctl {
  return { name, size, number: ((direction << 30) | (size << 16) | (KVMIO << 8) | number) >>> 0 }
}
const plain = (name: string, number: number) => request(name, 0, number, 0)
const writes = (name: string, number: number, { size }: { size: number }) => request(name, 1, number, size)
const reads = (name: string, number: number, { size }: { size: number }) => request(name, 2, number, size)
const both = (name: string, number: number, { size }: { size: number }) => request(name, 3, number, size)
/** kvm_cpuid2 and kvm_msrs end in a counted array, which does not count for the number. */
const countedHeader = { size: 8 }

export const KVM_GET_API_VERSION = plain('KVM_GET_API_VERSION', 0x00)
export const KVM_CREATE_VM = plain('KVM_CREATE_VM', 0x01)
export const KVM_GET_MSR_INDEX_LIST = both('KVM_GET_MSR_INDEX_LIST', 0x02, { size: 4 })
export const KVM_CHECK_EXTENSION = plain('KVM_CHECK_EXTENSION', 0x03)
export const KVM_GET_VCPU_MMAP_SIZE = plain('KVM_GET_VCPU_MMAP_SIZE', 0x04)
export const KVM_GET_SUPPORTED_CPUID = both('KVM_GET_SUPPORTED_CPUID', 0x05, countedHeader)
export const KVM_CREATE_VCPU = plain('KVM_CREATE_VCPU', 0x41)
export const KVM_GET_DIRTY_LOG = writes('KVM_GET_DIRTY_LOG', 0x42, DirtyLog)
export const KVM_SET_USER_MEMORY_REGION = writes('KVM_SET_USER_MEMORY_REGION', 0x46, UserspaceMemoryRegion)
export const KVM_SET_USER_MEMORY_REGION2 = writes('KVM_SET_USER_MEMORY_REGION2', 0x49, UserspaceMemoryRegion2)
export const KVM_SET_TSS_ADDR = plain('KVM_SET_TSS_ADDR', 0x47)
export const KVM_SET_IDENTITY_MAP_ADDR = writes('KVM_SET_IDENTITY_MAP_ADDR', 0x48, { size: 8 })
export const KVM_CREATE_IRQCHIP = plain('KVM_CREATE_IRQCHIP', 0x60)
export const KVM_IRQ_LINE = writes('KVM_IRQ_LINE', 0x61, IrqLevel)
export const KVM_REGISTER_COALESCED_MMIO = writes('KVM_REGISTER_COALESCED_MMIO', 0x67, CoalescedZone)
export const KVM_UNREGISTER_COALESCED_MMIO = writes('KVM_UNREGISTER_COALESCED_MMIO', 0x68, CoalescedZone)
export const KVM_GET_IRQCHIP = both('KVM_GET_IRQCHIP', 0x62, IrqchipState)
export const KVM_SET_GSI_ROUTING = writes('KVM_SET_GSI_ROUTING', 0x6a, countedHeader)
export const KVM_IRQFD = writes('KVM_IRQFD', 0x76, Irqfd)
export const KVM_CREATE_PIT2 = writes('KVM_CREATE_PIT2', 0x77, PitConfig)
export const KVM_IOEVENTFD = writes('KVM_IOEVENTFD', 0x79, IoEventfd)
export const KVM_RUN = plain('KVM_RUN', 0x80)
export const KVM_GET_REGS = reads('KVM_GET_REGS', 0x81, Registers)
export const KVM_SET_REGS = writes('KVM_SET_REGS', 0x82, Registers)
export const KVM_GET_SREGS = reads('KVM_GET_SREGS', 0x83, SpecialRegisters)
export const KVM_SET_SREGS = writes('KVM_SET_SREGS', 0x84, SpecialRegisters)
export const KVM_TRANSLATE = both('KVM_TRANSLATE', 0x85, Translation)
export const KVM_INTERRUPT = writes('KVM_INTERRUPT', 0x86, Interrupt)
export const KVM_GET_MSRS = both('KVM_GET_MSRS', 0x88, countedHeader)
export const KVM_SET_MSRS = writes('KVM_SET_MSRS', 0x89, countedHeader)
export const KVM_SET_SIGNAL_MASK = writes('KVM_SET_SIGNAL_MASK', 0x8b, { size: 4 })
export const KVM_GET_FPU = reads('KVM_GET_FPU', 0x8c, Fpu)
export const KVM_SET_FPU = writes('KVM_SET_FPU', 0x8d, Fpu)
export const KVM_GET_LAPIC = reads('KVM_GET_LAPIC', 0x8e, LapicState)
export const KVM_SET_LAPIC = writes('KVM_SET_LAPIC', 0x8f, LapicState)
export const KVM_SET_CPUID2 = writes('KVM_SET_CPUID2', 0x90, countedHeader)
export const KVM_GET_CPUID2 = both('KVM_GET_CPUID2', 0x91, countedHeader)
export const KVM_GET_MP_STATE = reads('KVM_GET_MP_STATE', 0x98, MpState)
export const KVM_SET_MP_STATE = writes('KVM_SET_MP_STATE', 0x99, MpState)
export const KVM_NMI = plain('KVM_NMI', 0x9a)
export const KVM_SET_GUEST_DEBUG = writes('KVM_SET_GUEST_DEBUG', 0x9b, GuestDebug)
export const KVM_GET_VCPU_EVENTS = reads('KVM_GET_VCPU_EVENTS', 0x9f, VcpuEvents)
export const KVM_SET_VCPU_EVENTS = writes('KVM_SET_VCPU_EVENTS', 0xa0, VcpuEvents)
export const KVM_GET_DEBUGREGS = reads('KVM_GET_DEBUGREGS', 0xa1, DebugRegisters)
export const KVM_SET_DEBUGREGS = writes('KVM_SET_DEBUGREGS', 0xa2, DebugRegisters)
export const KVM_ENABLE_CAP = writes('KVM_ENABLE_CAP', 0xa3, EnableCap)
export const KVM_SIGNAL_MSI = writes('KVM_SIGNAL_MSI', 0xa5, Msi)
export const KVM_CLEAR_DIRTY_LOG = both('KVM_CLEAR_DIRTY_LOG', 0xc0, ClearDirtyLog)
export const KVM_RESET_DIRTY_RINGS = plain('KVM_RESET_DIRTY_RINGS', 0xc7)
export const KVM_CREATE_GUEST_MEMFD = both('KVM_CREATE_GUEST_MEMFD', 0xd4, CreateGuestMemfd)
export const KVM_GET_STATS_FD = plain('KVM_GET_STATS_FD', 0xce)

/** Sizes of the entries behind a counted header, for the buffers handed to the kernel. */
export const countedEntrySizes = { cpuid: CpuidEntry.size, msr: MsrEntry.size } as const
