/** Every class of the library's main door with every method and setter that it has, and arguments that each takes. */
import { Kvm, Mapping, Registers, SpecialRegisters, type Vcpu, type Vm } from 'node-kvm'

/** What calls are made with, new for each method. */
export interface Machine {
  kvm: Kvm
  vm: Vm
  vcpu: Vcpu
  /** Behind the memslot at 0, all of it HLT instructions. */
  mapping: Mapping
}

export function makeMachine(options: { irqchip?: boolean } = {}): Machine {
  const kvm = Kvm.open()
  const vm = kvm.createVm()
  if (options.irqchip) vm.interrupts.createIrqchip()
  const mapping = Mapping.memfd(0x10000)
  mapping.fill(0xf4)
  vm.memslots.create({ gpa: 0, mapping })
  const vcpu = vm.createVcpu()
  if (!options.irqchip) vcpu.enter('real', { ip: 0 })
  return { kvm, vm, vcpu, mapping }
}

export function closeMachine({ kvm, vm, mapping }: Machine): void {
  vm.close()
  kvm.close()
  mapping.close()
}

/** Arguments that a method takes, several lists where it takes several kinds; none for one that takes no argument. */
type Valid = unknown[][]
export interface Row {
  /** The object, or the class for statics. */
  of(machine: Machine): any
  /** Of methods by name; of setters by name and `=`. */
  takes: Record<string, (machine: Machine) => Valid>
  irqchip?: boolean
  /** Kinds that methods take beside those of `takes`; `names` for objects that may have more than is looked at. */
  takesAlso?: Record<string, readonly string[]>
}

const nothing = (): Valid => [[]]
const page = () => new Uint8Array(4096)
/** What a slot's log is read with: nothing, once it keeps one. */
const loggedFirst = (machine: Machine): Valid => {
  slotOf(machine)?.setFlags({ logDirty: true })
  return [[]]
}
const slotOf = ({ vm }: Machine) => [...vm.memslots][0]
const onPage = (machine: Machine) => ({ gpa: 0x20000, mapping: machine.mapping, offset: 0, size: 0x1000 })

/** A transaction for each change: it is thrown away. */
function transactionOf({ vm, mapping }: Machine): object {
  const slot = [...vm.memslots][0] as never
  const within =
    (name: string) =>
    (...args: unknown[]) => {
      let made: unknown
      const undo = new Error('undone')
      try {
        vm.memslots.transaction((transaction) => {
          made = (transaction as any)[name](...args)
          throw undo
        })
      } catch (error) {
        if (error !== undo) throw error
      }
      return made
    }
  return { slot, mapping, ...Object.fromEntries(['create', 'move', 'rebind', 'resize', 'setFlags', 'delete'].map((name) => [name, within(name)])) }
}

export const table: Record<string, Row> = {
  Kvm: {
    of: ({ kvm }) => kvm,
    takes: { supportedCpuid: nothing, createVm: () => [[0], []], close: nothing }
  },
  'static Kvm': { of: () => Kvm, takes: { open: () => [['/dev/kvm'], []] } },
  Capabilities: { of: ({ kvm }) => kvm.capabilities, takes: { check: () => [['IRQCHIP'], [0]] }, takesAlso: { check: ['string', 'number'] } },
  VmCapabilities: {
    of: ({ vm }) => vm.capabilities,
    takes: {
      check: () => [['IRQCHIP'], [0]],
      enable: () => [
        ['EXCEPTION_PAYLOAD', 1n],
        ['EXCEPTION_PAYLOAD', 1n, 0n, 0n, 0n]
      ]
    },
    takesAlso: { check: ['string', 'number'], enable: ['string', 'number'] }
  },
  Vm: {
    of: ({ vm }) => vm,
    takes: {
      createVcpu: () => [[7], []],
      vcpu: () => [[0]],
      share: nothing,
      createGuestMemfd: () => [[{ size: 8192, mmap: false, initShared: false, flags: 0 }]],
      ioeventfd: () => [[{ port: 0x10, size: 1, datamatch: 5n }], [{ gpa: 0x5000_0000, size: 4 }]],
      coalesce: () => [
        [{ port: 0x20, size: 1 }, () => {}],
        [{ gpa: 0x6000_0000, size: 4 }, () => {}]
      ],
      dirtyLog: () => [[], [{ mode: 'bitmap', ringEntries: 1024 }]],
      close: nothing
    }
  },
  'static Vm': { of: ({ vm }) => vm.constructor, takes: { attach: ({ vm }) => [[vm.share()]] }, takesAlso: { attach: ['names'] } },
  Memslots: {
    of: ({ vm }) => vm.memslots,
    takes: {
      create: (machine) => [
        [{ ...onPage(machine), readonly: false, logDirty: true, guestMemfd: undefined, guestMemfdOffset: 0, flags: 0 }],
        [{ gpa: 0x40000, mapping: machine.mapping }]
      ],
      transaction: () => [[() => {}]],
      lookup: () => [[0x1000]],
      toString: nothing,
      toJSON: nothing
    }
  },
  Memslot: {
    of: slotOf,
    takes: {
      move: () => [[0x10000]],
      change: () => [[{ gpa: 0x20000, offset: 0, size: 0x10000, flags: 0 }]],
      rebind: ({ mapping }) => [[mapping, 0]],
      resize: () => [[0x8000]],
      setFlags: () => [[{ logDirty: true }]],
      getDirtyLog: loggedFirst,
      clearDirtyLog: () => [[new Uint8Array(8), 0]],
      dirtyPages: loggedFirst,
      delete: nothing,
      toJSON: nothing,
      toString: nothing
    }
  },
  MemslotTransaction: {
    of: transactionOf,
    takes: {
      create: (machine) => [[onPage(machine)]],
      move: (machine) => [[slotOf(machine), 0x10000]],
      rebind: (machine) => [[slotOf(machine), machine.mapping, 0]],
      resize: (machine) => [[slotOf(machine), 0x8000]],
      setFlags: (machine) => [[slotOf(machine), { logDirty: true }]],
      delete: (machine) => [[slotOf(machine)]]
    }
  },
  Mapping: {
    of: () => Mapping.memfd(0x10000),
    takes: {
      read: () => [[0, 16]],
      readInto: () => [[0, new Uint8Array(16)]],
      write: () => [[0, new Uint8Array(16)]],
      fill: () => [[1, 0, 16]],
      remap: () => [[0, 4096, page()]],
      advise: () => [['normal', 0, 4096]],
      punchHole: () => [[0, 4096]],
      protect: () => [['rw', 0, 4096]],
      onMissing: () => [[() => page()], [{ content: new Uint8Array(0x10000) }], [{ file: '/proc/self/exe', offset: 0 }]],
      onMinorFault: () => [[() => page()]],
      close: nothing
    },
    takesAlso: { onMissing: ['function', 'plain'] }
  },
  'static Mapping': {
    of: () => Mapping,
    takes: {
      anonymous: () => [[4096, { populate: false, hugePages: false, address: 0x7000_0000_0000, fixed: false, noReserve: false }]],
      memfd: () => [[4096, { populate: false }]],
      hugetlb: () => [[2 ** 21, { hugePageSize: 2 ** 21 }]],
      file: () => [[process.execPath, 4096, { readonly: true, shared: false, offset: 0 }]]
    }
  },
  DemandPaging: {
    of: () => Mapping.anonymous(4096).onMissing({ content: page() }),
    takes: { populate: nothing, ref: nothing, unref: nothing, close: nothing }
  },
  GuestMemory: {
    of: ({ vm }) => vm.memory,
    takes: { read: () => [[0x100, 16]], write: () => [[0x100, new Uint8Array(16)]] }
  },
  VmInterrupts: {
    irqchip: true,
    of: ({ vm }) => vm.interrupts,
    takes: {
      createIrqchip: nothing,
      createPit: () => [[{ speaker: false }], []],
      setLine: () => [[5, true]],
      signalMsi: () => [[{ address: 0xfee0_0000, data: 0x21 }]],
      setRouting: () => [[[{ gsi: 5, irqchip: 'ioapic', pin: 5 }]], [[{ gsi: 6, msi: { address: 0xfee0_0000, data: 0x21 } }]]],
      irqfd: () => [[{ gsi: 5, resample: false }]]
    }
  },
  Statistics: { of: ({ vm }) => vm.stats, takes: { describe: nothing, read: () => [['remote_tlb_flush'], []], close: nothing } },
  DirtyLog: {
    of: ({ vm }) => vm.dirtyLog(),
    takes: { collect: nothing, harvest: nothing, mark: () => [[0, 4096]], close: nothing }
  },
  IoEventfd: { of: ({ vm }) => vm.ioeventfd({ port: 0x10, size: 1 }), takes: { ref: nothing, unref: nothing, close: nothing } },
  Irqfd: {
    irqchip: true,
    of: ({ vm }) => vm.interrupts.irqfd({ gsi: 5 }),
    takes: { trigger: nothing, ref: nothing, unref: nothing, close: nothing }
  },
  CoalescedZone: { of: ({ vm }) => vm.coalesce({ port: 0x20, size: 1 }, () => {}), takes: { drain: nothing, close: nothing } },
  GuestMemfd: {
    of: ({ vm }) => vm.createGuestMemfd({ size: 8192 }),
    takes: { allocate: () => [[0, 4096]], punchHole: () => [[0, 4096]], mmap: () => [[{ offset: 0, size: 4096 }]], close: nothing }
  },
  Vcpu: {
    of: ({ vcpu }) => vcpu,
    takes: {
      run: () => [[{ timeoutMs: 50 }], []],
      finishExit: nothing,
      start: () => [
        [
          { 'io-out': () => {}, 'io-in': { handle: () => {} } },
          { signal: new AbortController().signal, queued: [{ port: 0x10, size: 1 }] }
        ],
        [{}, { queued: [{ gpa: 0x5000_0000, size: 4 }] }]
      ],
      pause: nothing,
      resume: nothing,
      stop: nothing,
      ref: nothing,
      unref: nothing,
      kick: nothing,
      setSignalMask: () => [[[10]]],
      enter: () => [
        ['real', { ip: 0, cs: 0, sp: 0 }],
        ['protected', { ip: 0, sp: 0 }],
        ['long', { ip: 0, sp: 0, ring: 3, tables: 0x1000, identityBytes: 2 ** 30 }]
      ],
      close: nothing
    },
    // A device is an object that may have much beside the method that is called.
    takesAlso: { start: ['function', 'names'] }
  },
  VcpuRegisters: {
    of: ({ vcpu }) => vcpu.registers,
    takes: {
      get: () => [[new Registers()], []],
      set: () => [[{ rax: 1n, rip: 2n }]],
      getSpecial: () => [[new SpecialRegisters()], []],
      setSpecial: () => [[{ cr2: 1n, cs: { limit: 0xffff }, interrupt_bitmap: [0n, 0n, 0n, 0n] }]],
      getFpu: nothing,
      setFpu: () => [[{ fcw: 0x37f, mxcsr: 0x1f80 }]]
    }
  },
  VcpuCpuid: { of: ({ vcpu }) => vcpu.cpuid, takes: { set: () => [[[{ function: 0, index: 0, eax: 1 }]]] } },
  VcpuMsrs: { of: ({ vcpu }) => vcpu.msrs, takes: { get: () => [[[0x10]]], set: () => [[[[0x10, 5n]]]] } },
  VcpuEvents: {
    of: ({ vcpu }) => vcpu.events,
    takes: {
      get: nothing,
      set: () => [[{ flags: 0, nmi: { pending: 0 }, interrupt: { nr: 0 } }]],
      getMpState: nothing,
      setMpState: () => [[0]],
      interrupt: () => [[32]],
      nmi: nothing,
      requestInterruptWindow: () => [[true]]
    }
  },
  VcpuLapic: {
    irqchip: true,
    of: ({ vcpu }) => vcpu.lapic,
    takes: { get: nothing, set: ({ vcpu }) => [[vcpu.lapic.get()]] }
  },
  VcpuDebug: {
    of: ({ vcpu }) => vcpu.debug,
    takes: {
      getRegisters: nothing,
      setRegisters: () => [[{ db: [0n, 0n, 0n, 0n], dr6: 0xffff_0ff0n, dr7: 0x400n }]],
      set: () => [[{ control: 1, arch: { debugreg: [0n, 0n, 0n, 0n, 0n, 0n, 0n, 0n] } }]],
      translate: () => [[0x1000n]]
    }
  },
  SyncRegisters: {
    of: ({ vcpu }) => vcpu.syncRegisters,
    takes: {
      ask: () => [[1]],
      markDirty: () => [[1]],
      'registers=': () => [[new Registers()]],
      'specialRegisters=': () => [[new SpecialRegisters()]]
    }
  }
}
