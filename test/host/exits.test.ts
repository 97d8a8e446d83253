import { inspect } from 'node:util'
import type { Exit } from 'node-kvm'
import { describe, expect, test } from 'vitest'
import * as constants from '../../lib/abi/generated/constants.js'
import { exitReasons } from '../../lib/abi/generated/exits.js'
import { kvm_run } from '../../lib/abi/generated/structures.js'
import type { Some } from '../../lib/abi/struct.js'
import { ExitReader } from '../../lib/kvm/vcpu/exit-reader.js'
import { knownReasons } from '../../lib/kvm/vcpu/rare-exits.js'

type Page = Some<(typeof kvm_run)['fields']>

/** The exit that the reader makes of a run page that KVM left with this reason. */
function exitOf(number: number, page: Page): { exit: Exit; page: kvm_run; reader: ExitReader } {
  const reader = new ExitReader()
  reader.area.set(new kvm_run({ exit_reason: number, ...page }).bytes.subarray(0, kvm_run.offsets.kvm_valid_regs))
  return { exit: reader.read(number), page: kvm_run.over(reader.area), reader }
}

const sixteen = (...given: bigint[]) => [...given, ...new Array<bigint>(16 - given.length).fill(0n)]
const internal = (suberror: number, ...data: bigint[]) => ({ internal: { suberror, ndata: data.length, data: sixteen(...data) } })
const hcall = { longmode: 1, cpl: 3, input: 7n, result: 99n, params: [1n, 2n, 3n, 4n, 5n, 6n] }

const told: [name: keyof typeof exitReasons, page: Page, exit: Exit][] = [
  ['EXCEPTION', { ex: { exception: 14, error_code: 2 } }, { reason: 'exception', exception: 14, errorCode: 2 }],
  [
    'HYPERCALL',
    { hypercall: { nr: 12n, args: [1n, 2n, 3n, 4n, 5n, 6n], ret: 99n, flags: 1n } },
    { reason: 'hypercall', number: 12n, arguments: [1n, 2n, 3n, 4n, 5n, 6n], flags: 1n, isLongMode: true, result: 0n }
  ],
  ['DEBUG', { debug: { arch: { exception: 1, pc: 2n, dr6: 3n, dr7: 4n } } }, { reason: 'debug', exception: 1, pc: 2n, dr6: 3n, dr7: 4n }],
  ['HLT', {}, { reason: 'hlt' }],
  ['IRQ_WINDOW_OPEN', {}, { reason: 'irq-window-open' }],
  ['SHUTDOWN', {}, { reason: 'shutdown' }],
  ['FAIL_ENTRY', { fail_entry: { hardware_entry_failure_reason: 2n ** 63n, cpu: 3 } }, { reason: 'fail-entry', hardwareReason: 2n ** 63n, cpu: 3 }],
  ['INTR', {}, { reason: 'interrupted' }],
  ['SET_TPR', { cr8: 5n }, { reason: 'set-tpr', cr8: 5n }],
  ['TPR_ACCESS', { tpr_access: { rip: 9n, is_write: 1 } }, { reason: 'tpr-access', rip: 9n, isWrite: true }],
  ['NMI', {}, { reason: 'nmi' }],
  [
    'INTERNAL_ERROR',
    internal(constants.KVM_INTERNAL_ERROR_EMULATION, 0n, 8n),
    { reason: 'internal-error', suberror: 'emulation', flags: 0n, instruction: undefined, data: [0n, 8n] }
  ],
  [
    'INTERNAL_ERROR',
    internal(constants.KVM_INTERNAL_ERROR_EMULATION, 1n, 0xab_cd_02n, 0n),
    { reason: 'internal-error', suberror: 'emulation', flags: 1n, instruction: new Uint8Array([0xcd, 0xab]), data: [1n, 0xab_cd_02n, 0n] }
  ],
  [
    'INTERNAL_ERROR',
    internal(constants.KVM_INTERNAL_ERROR_SIMUL_EX, 1n, 2n, 3n, 4n),
    { reason: 'internal-error', suberror: 'simultaneous-exceptions', vectoringInfo: 1n, interruptionInfo: 2n, errorCode: 3n, data: [1n, 2n, 3n, 4n] }
  ],
  [
    'INTERNAL_ERROR',
    internal(constants.KVM_INTERNAL_ERROR_DELIVERY_EV, 1n, 2n, 3n, 0xa000n, 5n),
    {
      reason: 'internal-error',
      suberror: 'delivery',
      vectoringInfo: 1n,
      exitReason: 2n,
      exitQualification: 3n,
      gpa: 0xa000n,
      data: [1n, 2n, 3n, 0xa000n, 5n]
    }
  ],
  [
    'INTERNAL_ERROR',
    internal(constants.KVM_INTERNAL_ERROR_DELIVERY_EV, 1n, 2n, 3n, 5n),
    {
      reason: 'internal-error',
      suberror: 'delivery',
      vectoringInfo: 1n,
      exitReason: 2n,
      exitQualification: 3n,
      gpa: undefined,
      data: [1n, 2n, 3n, 5n]
    }
  ],
  [
    'INTERNAL_ERROR',
    internal(constants.KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, 77n, 1n),
    { reason: 'internal-error', suberror: 'unexpected-exit-reason', exitReason: 77n, data: [77n, 1n] }
  ],
  ['INTERNAL_ERROR', internal(99), { reason: 'internal-error', suberror: 99, data: [] }],
  [
    'SYSTEM_EVENT',
    { system_event: { type: constants.KVM_SYSTEM_EVENT_CRASH, ndata: 1, data: sixteen(8n) } },
    { reason: 'system-event', type: 'crash', data: [8n] }
  ],
  ['SYSTEM_EVENT', { system_event: { type: 99, ndata: 0 } }, { reason: 'system-event', type: 99, data: [] }],
  ['IOAPIC_EOI', { eoi: { vector: 0x31 } }, { reason: 'ioapic-eoi', vector: 0x31 }],
  [
    'HYPERV',
    { hyperv: { type: constants.KVM_EXIT_HYPERV_SYNIC, u: { synic: { msr: 0x4000_0080, control: 1n, evt_page: 2n, msg_page: 3n } } } },
    { reason: 'hyperv', type: 'synic', msr: 0x4000_0080, control: 1n, eventPage: 2n, messagePage: 3n }
  ],
  [
    'HYPERV',
    { hyperv: { type: constants.KVM_EXIT_HYPERV_HCALL, u: { hcall: { input: 0x5cn, result: 99n, params: [1n, 2n] } } } },
    { reason: 'hyperv', type: 'hcall', input: 0x5cn, parameters: [1n, 2n], result: 0n }
  ],
  [
    'HYPERV',
    {
      hyperv: {
        type: constants.KVM_EXIT_HYPERV_SYNDBG,
        u: { syndbg: { msr: 0x4000_00f1, control: 1n, status: 2n, send_page: 3n, recv_page: 4n, pending_page: 5n } }
      }
    },
    { reason: 'hyperv', type: 'syndbg', msr: 0x4000_00f1, control: 1n, status: 2n, sendPage: 3n, receivePage: 4n, pendingPage: 5n }
  ],
  ['HYPERV', { hyperv: { type: 99 } }, { reason: 'other', number: exitReasons.HYPERV }],
  ['X86_RDMSR', { msr: { reason: 1, index: 2, data: 3n } }, { reason: 'rdmsr', index: 2, cause: 'invalid', data: 3n, failed: false }],
  ['X86_WRMSR', { msr: { reason: 4, index: 2, data: 3n } }, { reason: 'wrmsr', index: 2, cause: 'filter', data: 3n, failed: false }],
  ['X86_WRMSR', { msr: { reason: 64, index: 2, data: 3n } }, { reason: 'wrmsr', index: 2, cause: 64, data: 3n, failed: false }],
  ['DIRTY_RING_FULL', {}, { reason: 'dirty-ring-full' }],
  ['AP_RESET_HOLD', {}, { reason: 'ap-reset-hold' }],
  ['X86_BUS_LOCK', {}, { reason: 'bus-lock' }],
  [
    'XEN',
    { xen: { type: constants.KVM_EXIT_XEN_HCALL, u: { hcall } } },
    { reason: 'xen', type: 'hcall', isLongMode: true, cpl: 3, input: 7n, parameters: hcall.params, result: 0n }
  ],
  ['NOTIFY', { notify: { flags: 1 } }, { reason: 'notify', flags: 1, isContextInvalid: true }],
  [
    'MEMORY_FAULT',
    { memory_fault: { flags: 8n, gpa: 0xa000n, size: 0x1000n } },
    { reason: 'memory-fault', flags: 8n, isPrivate: true, gpa: 0xa000, size: 0x1000 }
  ],
  ['SNP_REQ_CERTS', { snp_req_certs: { gpa: 0xa000n, npages: 4n, ret: 99n } }, { reason: 'snp-req-certs', gpa: 0xa000, pages: 4n, result: 0n }],
  [
    'TDX',
    { tdx: { flags: 0n, nr: 0x1_0002n, get_quote: { ret: 9n, gpa: 0xa000n, size: 0x1000n } } },
    { reason: 'tdx', number: 0x1_0002n, flags: 0n, data: [0xa000n, 0x1000n, 0n, 0n, 0n], result: 9n }
  ]
]

test.each(told)('%s is told with its whole payload', (name, page, expected) => {
  const { exit } = exitOf(exitReasons[name], page)
  expect(exit).toEqual(expected)
  expect(inspect(exit)).toContain(`reason: '${expected.reason}'`)
  expect(knownReasons).toContain(exit.reason)
  expect(structuredClone({ ...exit })).toEqual(expected)
})

test('every reason is among those told here, or made otherwise', () => {
  const here = new Set<string>(told.map(([, , { reason }]) => reason))
  expect(knownReasons.filter((reason) => !here.has(reason))).toEqual(['io-out', 'io-in', 'mmio', 'timeout'])
})

describe('an answer', () => {
  type Answered = Record<string, unknown>
  const answered: [name: keyof typeof exitReasons, page: Page, field: string, value: unknown, where: (page: kvm_run) => unknown, held: unknown][] = [
    ['HYPERCALL', {}, 'result', 5n, ({ hypercall }) => hypercall.ret, 5n],
    ['X86_RDMSR', {}, 'data', 5n, ({ msr }) => msr.data, 5n],
    ['X86_RDMSR', {}, 'failed', true, ({ msr }) => msr.error, 1],
    ['X86_WRMSR', {}, 'failed', true, ({ msr }) => msr.error, 1],
    ['XEN', { xen: { type: constants.KVM_EXIT_XEN_HCALL } }, 'result', 5n, ({ xen }) => xen.u.hcall.result, 5n],
    ['HYPERV', { hyperv: { type: constants.KVM_EXIT_HYPERV_HCALL } }, 'result', 5n, ({ hyperv }) => hyperv.u.hcall.result, 5n],
    ['HYPERV', { hyperv: { type: constants.KVM_EXIT_HYPERV_SYNDBG } }, 'status', 5n, ({ hyperv }) => hyperv.u.syndbg.status, 5n],
    ['SNP_REQ_CERTS', {}, 'pages', 5n, ({ snp_req_certs }) => snp_req_certs.npages, 5n],
    ['TDX', {}, 'result', 5n, ({ tdx }) => tdx.unknown.ret, 5n],
    ['SNP_REQ_CERTS', {}, 'result', 5n, ({ snp_req_certs }) => snp_req_certs.ret, 5n]
  ]
  test.each(answered)('to %s (%o) lies where KVM reads it, until the vCPU went on', (name, given, field, value, where, held) => {
    const { exit, page, reader } = exitOf(exitReasons[name], given)
    const before = where(page)
    ;(exit as unknown as Answered)[field] = value
    expect((exit as unknown as Answered)[field]).toBe(value)
    expect(where(page)).toBe(held)
    // The next exit is of the same kind.
    const next = reader.read(exitReasons[name]) as unknown as Answered
    next[field] = typeof value === 'boolean' ? false : 0n
    ;(exit as unknown as Answered)[field] = value
    expect(where(page)).toBe(before)
    // The next exit is of a device, which has an object already.
    page.exit_reason = exitReasons.IO
    reader.read(exitReasons.IO)
    next[field] = value
    expect(where(page)).toBe(before)
  })

  test('to an exit whose memory was transferred away is nobody else’s', () => {
    const { exit, reader } = exitOf(exitReasons.X86_RDMSR, {})
    structuredClone(reader.area, { transfer: [reader.area.buffer as ArrayBuffer] })
    expect(() => Object.assign(exit, { data: 5n })).not.toThrow()
  })
})
