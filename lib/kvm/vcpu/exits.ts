/** What KVM_RUN came back for: the union of kvm_run (api.rst 5), as a discriminated union with its whole payload. */

import type { Gpa } from '../../abi/addresses.js'
import { exitWords } from '../../abi/vcpu-calls.js'

/** Bytes of the copied run page; the port data lie at a fixed place in it (native/core/run.h). */
const exitAreaSize = 4608
const portData = 512
const union = 32

/** A port write, or with `count` above 1 a string write (`rep outs`): `data` holds `size * count` bytes. */
export interface IoOutExit {
  reason: 'io-out'
  port: number
  size: number
  count: number
  data: Uint8Array
}
/** A port read: put the answer into `data` before the next run. */
export interface IoInExit {
  reason: 'io-in'
  port: number
  size: number
  count: number
  data: Uint8Array
}
/** An access outside every memslot, or a write to a READONLY one. For a read put the answer into `data`. */
export interface MmioExit {
  reason: 'mmio'
  gpa: Gpa
  isWrite: boolean
  length: number
  data: Uint8Array
}
/** The guest executed HLT, and no in-kernel interrupt controller waits for it. */
export interface HltExit {
  reason: 'hlt'
}
/** A triple fault. */
export interface ShutdownExit {
  reason: 'shutdown'
}
/** The processor refused the guest's state. `hardwareReason`: Intel SDM volume 3 appendix C, or AMD APM volume 2 appendix C. */
export interface FailEntryExit {
  reason: 'fail-entry'
  hardwareReason: bigint
  cpu: number
}
/** KVM gave up. `suberror` 1: an instruction the emulator lacks, whose bytes follow in `instruction`; 3: delivery of an event. */
export interface InternalErrorExit {
  reason: 'internal-error'
  suberror: number
  data: bigint[]
  instruction: Uint8Array | undefined
}
/** The guest touched memory the host cannot give. Comes with an errno in the kernel. */
export interface MemoryFaultExit {
  reason: 'memory-fault'
  flags: bigint
  gpa: Gpa
  size: number
}
/** Reset, shutdown or crash asked for by the guest: KVM_SYSTEM_EVENT_. */
export interface SystemEventExit {
  reason: 'system-event'
  type: number
  data: bigint[]
}
/** A breakpoint or single step asked for by KVM_SET_GUEST_DEBUG. */
export interface DebugExit {
  reason: 'debug'
  exception: number
  pc: bigint
  dr6: bigint
  dr7: bigint
}
/** An exception that KVM hands on; seen on no processor of today. */
export interface ExceptionExit {
  reason: 'exception'
  exception: number
  errorCode: number
}
/** VMCALL or VMMCALL that KVM_CAP_EXIT_HYPERCALL hands to user space. */
export interface HypercallExit {
  reason: 'hypercall'
  number: bigint
  arguments: bigint[]
}
/** RDMSR or WRMSR that KVM_CAP_X86_USER_SPACE_MSR hands to user space; `cause` is a KVM_MSR_EXIT_REASON_ bit. */
export interface MsrExit {
  reason: 'rdmsr' | 'wrmsr'
  index: number
  cause: number
  data: bigint
}
/** The guest takes interrupts again (asked for by `request_interrupt_window`). */
export interface IrqWindowExit {
  reason: 'irq-window-open'
}
/** The guest ended a level-triggered interrupt that the split interrupt controller watches. */
export interface ApicEoiExit {
  reason: 'ioapic-eoi'
  vector: number
}
/** The guest touched its task priority register (KVM_TPR_ACCESS_REPORTING). */
export interface TprAccessExit {
  reason: 'tpr-access'
  rip: bigint
  isWrite: boolean
}
/** The dirty ring must be harvested and reset before the vCPU runs on. */
export interface DirtyRingFullExit {
  reason: 'dirty-ring-full'
}
/** No event window opened in the guest for too long (KVM_CAP_X86_NOTIFY_VMEXIT). */
export interface NotifyExit {
  reason: 'notify'
  flags: number
}
/** The time limit of run() passed. The vCPU is as it was and can run again. */
export interface TimeoutExit {
  reason: 'timeout'
}
/** Somebody kicked the vCPU. */
export interface InterruptedExit {
  reason: 'interrupted'
}
/** A reason this library does not know by name: `number` is KVM's. */
export interface OtherExit {
  reason: 'other'
  number: number
}

/** One exit. Its object belongs to the vCPU and is filled anew by the next run(): copy what must outlive it. */
export type Exit =
  | IoOutExit
  | IoInExit
  | MmioExit
  | HltExit
  | ShutdownExit
  | FailEntryExit
  | InternalErrorExit
  | MemoryFaultExit
  | SystemEventExit
  | DebugExit
  | ExceptionExit
  | HypercallExit
  | MsrExit
  | IrqWindowExit
  | ApicEoiExit
  | TprAccessExit
  | DirtyRingFullExit
  | NotifyExit
  | TimeoutExit
  | InterruptedExit
  | OtherExit

const memoryFaultNumber = 39

/**
 * Reads exits out of the copied run page. Each kind has one object per vCPU, written over at each exit, so that the loop
 * "run, look, run" allocates nothing.
 */
export class ExitReader {
  /** What runs copy the run page to, and answers are taken from. */
  readonly area = new Uint8Array(exitAreaSize)
  readonly #view = new DataView(this.area.buffer)
  readonly #union = new Int32Array(this.area.buffer, union, exitWords.length)
  readonly #windows = new Map<number, Uint8Array>()
  #portWindow = this.#window(portData, 1)
  readonly #ioOut: IoOutExit = { reason: 'io-out', port: 0, size: 0, count: 0, data: this.#portWindow }
  readonly #ioIn: IoInExit = { reason: 'io-in', port: 0, size: 0, count: 0, data: this.#portWindow }
  // Half a number, so that the field holds a double from the start and an address above 2^31 is stored in place.
  readonly #mmio: MmioExit = { reason: 'mmio', gpa: 0.5, isWrite: false, length: 0, data: this.#portWindow }
  readonly #hlt: HltExit = { reason: 'hlt' }

  /** Whether a caller transferred `exit.data.buffer` away, and the area with it. */
  get lost(): boolean {
    // Not asked of the area: each object looked at counts here.
    return this.#portWindow.length === 0
  }

  /** Puts the exit back into the words that read() looks at: it came from a runner, or a handler since then may have run another vCPU. */
  recall(): void {
    exitWords.set(this.#union)
  }

  /** The exit of KVM's number that a run has just copied, or that was recalled. */
  read(number: number): Exit {
    if (number === 2) return this.#readIo()
    if (number === 6) return this.#readMmio()
    if (number === 5) return this.#hlt
    return this.#readRare(number)
  }

  /** The MMIO exit in the copied run page, whatever other vCPUs did since. */
  readCopiedMmio(): MmioExit {
    this.recall()
    return this.#readMmio()
  }

  #window(offset: number, length: number): Uint8Array {
    const key = offset * exitAreaSize + length
    let window = this.#windows.get(key)
    if (!window) this.#windows.set(key, (window = this.area.subarray(offset, offset + length)))
    return window
  }

  #readIo(): IoOutExit | IoInExit {
    // u8 direction, u8 size, u16 port; u32 count.
    const head = exitWords[0] as number
    const exit = (head & 0xff) === 1 ? this.#ioOut : this.#ioIn
    exit.size = (head >>> 8) & 0xff
    exit.port = head >>> 16
    exit.count = exitWords[1] as number
    const length = Math.min(exit.size * exit.count, exitAreaSize - portData)
    if (this.#portWindow.length !== length) this.#portWindow = this.#window(portData, length)
    exit.data = this.#portWindow
    return exit
  }

  #readMmio(): MmioExit {
    // u64 address, u8 data[8], u32 length, u8 is_write.
    const exit = this.#mmio
    exit.gpa = ((exitWords[0] as number) >>> 0) + ((exitWords[1] as number) >>> 0) * 2 ** 32
    exit.length = exitWords[4] as number
    exit.isWrite = ((exitWords[5] as number) & 0xff) !== 0
    exit.data = this.#window(union + 8, Math.min(exit.length, 8))
    return exit
  }

  #u32 = (offset: number) => this.#view.getUint32(union + offset, true)
  #u64 = (offset: number) => this.#view.getBigUint64(union + offset, true)
  #list = (offset: number, length: number) => Array.from({ length: Math.min(length, 16) }, (_, index) => this.#u64(offset + 8 * index))

  #readRare(number: number): Exit {
    switch (number) {
      case 1:
        return { reason: 'exception', exception: this.#u32(0), errorCode: this.#u32(4) }
      case 3:
        return { reason: 'hypercall', number: this.#u64(0), arguments: this.#list(8, 6) }
      case 4:
        return { reason: 'debug', exception: this.#u32(0), pc: this.#u64(8), dr6: this.#u64(16), dr7: this.#u64(24) }
      case 7:
        return { reason: 'irq-window-open' }
      case 8:
        return { reason: 'shutdown' }
      case 9:
        return { reason: 'fail-entry', hardwareReason: this.#u64(0), cpu: this.#u32(8) }
      case 10:
        return { reason: 'interrupted' }
      case 12:
        return { reason: 'tpr-access', rip: this.#u64(0), isWrite: this.#u32(8) !== 0 }
      case 17:
        return this.#readInternalError()
      case 24:
        return { reason: 'system-event', type: this.#u32(0), data: this.#list(8, this.#u32(4)) }
      case 26:
        return { reason: 'ioapic-eoi', vector: this.#view.getUint8(union) }
      case 29:
      case 30:
        return { reason: number === 29 ? 'rdmsr' : 'wrmsr', cause: this.#u32(8), index: this.#u32(12), data: this.#u64(16) }
      case 31:
        return { reason: 'dirty-ring-full' }
      case 37:
        return { reason: 'notify', flags: this.#u32(0) }
      case memoryFaultNumber:
        return { reason: 'memory-fault', flags: this.#u64(0), gpa: Number(this.#u64(8)), size: Number(this.#u64(16)) }
      default:
        return { reason: 'other', number }
    }
  }

  // Emulation failures carry the instruction when the first flag says so (api.rst, KVM_EXIT_INTERNAL_ERROR).
  #readInternalError(): InternalErrorExit {
    const suberror = this.#u32(0)
    const count = this.#u32(4)
    const hasInstruction = suberror === 1 && count >= 4 && (this.#u64(8) & 1n) !== 0n
    const length = Math.min(this.#view.getUint8(union + 16), 15)
    return {
      reason: 'internal-error',
      suberror,
      data: this.#list(8, count),
      instruction: hasInstruction ? this.area.slice(union + 17, union + 17 + length) : undefined
    }
  }
}
