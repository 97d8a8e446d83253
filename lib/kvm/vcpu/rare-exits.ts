/** All exits except those of devices. Each is an object of its own, read by the generated schema of kvm_run. */
import { inspect } from 'node:util'
import { checkBoolean } from '../../abi/arguments.js'
import { array, u64 } from '../../abi/fields.js'
import * as constants from '../../abi/generated/constants.js'
import { exitReasons } from '../../abi/generated/exits.js'
import type { kvm_hyperv_exit, kvm_run } from '../../abi/generated/structures.js'
import type { Exit, HypervExit, InternalErrorExit } from './exits.js'

// Exits that the reader of device exits makes, and exits that have no reason of KVM.
const otherKinds = ['io-out', 'io-in', 'mmio', 'hlt', 'timeout', 'other'] as const
type RareReason = Exclude<Exit['reason'], (typeof otherKinds)[number]>
type Rare<R = RareReason> = Extract<Exit, { reason: R }>
type Payload<E> = E extends Exit ? Omit<E, 'reason'> : never

/** A field that answers the exit: how an assigned value is checked, and where KVM reads it. */
interface Answer {
  check(name: string, value: unknown): unknown
  put(run: kvm_run, value: any): void
}
interface Kind<E> {
  readonly number: number
  /** Returns undefined for a form of the exit that this library does not know. */
  read(run: kvm_run): Payload<E> | undefined
  /** The answers, by field. An exit has the fields of its form. */
  readonly answers?: Readonly<Record<string, Answer>>
}

const register = (put: (run: kvm_run, value: bigint) => void): Answer => ({ check: u64.check, put })
const failed: Answer = {
  check: checkBoolean,
  put(run, value: boolean) {
    run.msr.error = value ? 1 : 0
  }
}

const named = <N extends string>(names: Readonly<Record<number, N>>, number: number): N | number => names[number] ?? number

const msrCauses = {
  [constants.KVM_MSR_EXIT_REASON_INVAL]: 'invalid',
  [constants.KVM_MSR_EXIT_REASON_UNKNOWN]: 'unknown',
  [constants.KVM_MSR_EXIT_REASON_FILTER]: 'filter'
} as const
const systemEvents = {
  [constants.KVM_SYSTEM_EVENT_SHUTDOWN]: 'shutdown',
  [constants.KVM_SYSTEM_EVENT_RESET]: 'reset',
  [constants.KVM_SYSTEM_EVENT_CRASH]: 'crash',
  [constants.KVM_SYSTEM_EVENT_WAKEUP]: 'wakeup',
  [constants.KVM_SYSTEM_EVENT_SUSPEND]: 'suspend',
  [constants.KVM_SYSTEM_EVENT_SEV_TERM]: 'sev-term',
  [constants.KVM_SYSTEM_EVENT_TDX_FATAL]: 'tdx-fatal'
} as const

const msrOf = ({ msr }: kvm_run) => ({ index: msr.index, cause: named(msrCauses, msr.reason), data: msr.data, failed: false })

// The layout is that of prepare_emulation_failure_exit(), kvm_prepare_event_vectoring_exit() and their callers in arch/x86/kvm.
function readInternalError({ internal, emulation_failure }: kvm_run): Payload<InternalErrorExit> {
  const { suberror } = internal
  const data = internal.data.slice(0, internal.ndata)
  switch (suberror) {
    case constants.KVM_INTERNAL_ERROR_EMULATION: {
      // Kernels before 5.12 give no flags.
      const flags = data[0] ?? 0n
      const knowsInstruction = (flags & BigInt(constants.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) !== 0n
      const { insn_size, insn_bytes } = emulation_failure
      return { suberror: 'emulation', flags, instruction: knowsInstruction ? insn_bytes.slice(0, insn_size) : undefined, data }
    }
    case constants.KVM_INTERNAL_ERROR_SIMUL_EX:
      return { suberror: 'simultaneous-exceptions', vectoringInfo: data[0], interruptionInfo: data[1], errorCode: data[2], data }
    case constants.KVM_INTERNAL_ERROR_DELIVERY_EV:
      // The processor's number comes last. Kernels before 6.14 put the GPA before it only for some exits.
      return {
        suberror: 'delivery',
        vectoringInfo: data[0],
        exitReason: data[1],
        exitQualification: data[2],
        gpa: data.length > 4 ? data[3] : undefined,
        data
      }
    case constants.KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
      return { suberror: 'unexpected-exit-reason', exitReason: data[0], data }
    default:
      return { suberror, data }
  }
}

function readHyperv({ type, u: { synic, hcall, syndbg } }: kvm_hyperv_exit): Payload<HypervExit> | undefined {
  switch (type) {
    case constants.KVM_EXIT_HYPERV_SYNIC:
      return { type: 'synic', msr: synic.msr, control: synic.control, eventPage: synic.evt_page, messagePage: synic.msg_page }
    case constants.KVM_EXIT_HYPERV_HCALL:
      return { type: 'hcall', input: hcall.input, parameters: hcall.params, result: 0n }
    case constants.KVM_EXIT_HYPERV_SYNDBG: {
      const { msr, control, status, send_page: sendPage, recv_page: receivePage, pending_page: pendingPage } = syndbg
      return { type: 'syndbg', msr, control, status, sendPage, receivePage, pendingPage }
    }
    default:
      return undefined
  }
}

const nothingMore = () => ({})
const tdxWords = array(u64, 5)

const kinds: { readonly [R in RareReason]: Kind<Rare<R>> } = {
  exception: { number: exitReasons.EXCEPTION, read: ({ ex }) => ({ exception: ex.exception, errorCode: ex.error_code }) },
  hypercall: {
    number: exitReasons.HYPERCALL,
    read: ({ hypercall: { nr, args, flags } }) => ({
      number: nr,
      arguments: args,
      flags,
      isLongMode: (flags & BigInt(constants.KVM_EXIT_HYPERCALL_LONG_MODE)) !== 0n,
      result: 0n
    }),
    answers: { result: register((run, value) => void (run.hypercall.ret = value)) }
  },
  debug: {
    number: exitReasons.DEBUG,
    read: ({ debug: { arch } }) => ({ exception: arch.exception, pc: arch.pc, dr6: arch.dr6, dr7: arch.dr7 })
  },
  'irq-window-open': { number: exitReasons.IRQ_WINDOW_OPEN, read: nothingMore },
  shutdown: { number: exitReasons.SHUTDOWN, read: nothingMore },
  'fail-entry': {
    number: exitReasons.FAIL_ENTRY,
    read: ({ fail_entry: { hardware_entry_failure_reason, cpu } }) => ({ hardwareReason: hardware_entry_failure_reason, cpu })
  },
  interrupted: { number: exitReasons.INTR, read: nothingMore },
  'set-tpr': { number: exitReasons.SET_TPR, read: ({ cr8 }) => ({ cr8 }) },
  'tpr-access': { number: exitReasons.TPR_ACCESS, read: ({ tpr_access: { rip, is_write } }) => ({ rip, isWrite: is_write !== 0 }) },
  nmi: { number: exitReasons.NMI, read: nothingMore },
  'internal-error': { number: exitReasons.INTERNAL_ERROR, read: readInternalError },
  'system-event': {
    number: exitReasons.SYSTEM_EVENT,
    read: ({ system_event: { type, data, ndata } }) => ({ type: named(systemEvents, type), data: data.slice(0, ndata) })
  },
  'ioapic-eoi': { number: exitReasons.IOAPIC_EOI, read: ({ eoi }) => ({ vector: eoi.vector }) },
  hyperv: {
    number: exitReasons.HYPERV,
    read: ({ hyperv }) => readHyperv(hyperv),
    answers: {
      result: register((run, value) => void (run.hyperv.u.hcall.result = value)),
      status: register((run, value) => void (run.hyperv.u.syndbg.status = value))
    }
  },
  rdmsr: {
    number: exitReasons.X86_RDMSR,
    read: msrOf,
    answers: { data: register((run, value) => void (run.msr.data = value)), failed }
  },
  wrmsr: { number: exitReasons.X86_WRMSR, read: msrOf, answers: { failed } },
  'dirty-ring-full': { number: exitReasons.DIRTY_RING_FULL, read: nothingMore },
  'ap-reset-hold': { number: exitReasons.AP_RESET_HOLD, read: nothingMore },
  'bus-lock': { number: exitReasons.X86_BUS_LOCK, read: nothingMore },
  xen: {
    number: exitReasons.XEN,
    read({ xen: { type, u } }) {
      if (type !== constants.KVM_EXIT_XEN_HCALL) return undefined
      const { longmode, cpl, input, params } = u.hcall
      return { type: 'hcall', isLongMode: longmode !== 0, cpl, input, parameters: params, result: 0n }
    },
    answers: { result: register((run, value) => void (run.xen.u.hcall.result = value)) }
  },
  notify: {
    number: exitReasons.NOTIFY,
    read: ({ notify: { flags } }) => ({ flags, isContextInvalid: (flags & constants.KVM_NOTIFY_CONTEXT_INVALID) !== 0 })
  },
  'snp-req-certs': {
    number: exitReasons.SNP_REQ_CERTS,
    read: ({ snp_req_certs: { gpa, npages } }) => ({ gpa: Number(gpa), pages: npages, result: 0n }),
    answers: {
      pages: register((run, value) => void (run.snp_req_certs.npages = value)),
      result: register((run, value) => void (run.snp_req_certs.ret = value))
    }
  },
  tdx: {
    number: exitReasons.TDX,
    read: ({ tdx: { flags, nr, unknown } }) => ({ number: nr, flags, data: unknown.data, result: unknown.ret }),
    answers: {
      data: { check: tdxWords.check, put: (run, value: bigint[]) => void (run.tdx.unknown.data = value) },
      result: register((run, value) => void (run.tdx.unknown.ret = value))
    }
  },
  'memory-fault': {
    number: exitReasons.MEMORY_FAULT,
    read: ({ memory_fault: { flags, gpa, size } }) => ({
      flags,
      isPrivate: (flags & BigInt(constants.KVM_MEMORY_EXIT_FLAG_PRIVATE)) !== 0n,
      gpa: Number(gpa),
      size: Number(size)
    })
  }
}

/** @internal Every reason that an exit can have. */
export const knownReasons: readonly Exit['reason'][] = [...otherKinds, ...(Object.keys(kinds) as RareReason[])]

const byNumber = new Map(Object.entries(kinds).map(([reason, kind]) => [kind.number, { reason, ...kind } as Kind<Rare> & { reason: RareReason }]))

/** Prints like a plain object with the same fields. */
class Answerable {
  [field: string]: unknown
  [inspect.custom](): unknown {
    return { ...this }
  }
}

/**
 * @internal Makes the exit in `run`; `number` is KVM's number for its reason.
 * @param isAwaited whether the vCPU still waits for the answer to this exit; a later assignment reaches nobody
 */
export function readRareExit(run: kvm_run, number: number, isAwaited: (exit: object) => boolean): Exit {
  const kind = byNumber.get(number)
  const payload = kind?.read(run)
  if (kind === undefined || payload === undefined) return { reason: 'other', number }
  const { reason, answers } = kind
  if (answers === undefined) return { reason, ...payload } as Exit
  const exit: Answerable = Object.assign(new Answerable(), { reason, ...payload })
  for (const [name, answer] of Object.entries(answers)) if (name in exit) takeAnswer(exit, name, answer, run, isAwaited)
  return exit as unknown as Exit
}

// The answer is a property of the exit itself, so that a copy has it, too.
function takeAnswer(exit: Answerable, name: string, { check, put }: Answer, run: kvm_run, isAwaited: (exit: object) => boolean): void {
  let value = exit[name]
  // Sets what the guest gets if nothing is assigned, because KVM may have left the value of an earlier exit there.
  put(run, value)
  Object.defineProperty(exit, name, {
    enumerable: true,
    get: () => value,
    set(given: unknown) {
      value = check(name, given)
      if (isAwaited(exit)) put(run, value)
    }
  })
}
