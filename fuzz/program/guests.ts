/** Guests of a few instructions in real mode, and the ledger of their writes: each write must be told once. */
import { attempt, report } from './attempt.js'
import type { Library } from './library.js'

type Vm = Library.Vm
type Vcpu = Library.Vcpu
type Exit = Library.Exit | Library.RunEnd

/** Six writes of one byte to ports from 0x10 on, by a vCPU that halts after them. */
export interface Script {
  vcpu: Vcpu
  code: Uint8Array
  ip: number
  /** The port of each value. */
  writes: Map<number, number>
  told: Map<number, number>
}
export interface Ledger {
  scripts: Script[]
  /** How many guests there were: each has a separate place for its code. */
  guests: number
  /** Ports whose writes go to an ioeventfd instead. */
  swallowed: Set<number>
}

export function ledgerOf(vm: Library.VcpuHost): Ledger {
  const ledgers = ((globalThis as { nodeKvmLedgers?: WeakMap<Library.VcpuHost, Ledger> }).nodeKvmLedgers ??= new WeakMap())
  let ledger = ledgers.get(vm)
  if (!ledger) ledgers.set(vm, (ledger = { scripts: [], guests: 0, swallowed: new Set() }))
  return ledger
}

/**
 * Notes that something was done to these objects (to registers, memory or a slot) after which a guest may write something else than its script says.
 */
export function disturb(...all: unknown[]): void {
  const disturbed = ((globalThis as { nodeKvmDisturbed?: WeakSet<object> }).nodeKvmDisturbed ??= new WeakSet())
  for (const one of all) if (typeof one === 'object' && one !== null) disturbed.add(one)
}
export function isDisturbed(...all: unknown[]): boolean {
  const disturbed = (globalThis as { nodeKvmDisturbed?: WeakSet<object> }).nodeKvmDisturbed
  return disturbed !== undefined && all.some((one) => typeof one === 'object' && one !== null && disturbed.has(one))
}

/** Puts code where no other guest has its own, and lets the vCPU begin there. */
export function enterCode(vcpu: Vcpu, code: number[]): number | undefined {
  const ledger = ledgerOf(vcpu.vm)
  const ip = 0x4000 + 0x40 * ledger.guests++
  if (ip >= 0x8000) return undefined
  const entered = attempt(() => {
    vcpu.vm.memory.write(ip, new Uint8Array(code))
    return vcpu.enter('real', { ip, sp: 0x3000 })
  })
  return entered && ip
}

/** 1: hlt; jmp 1b. It is a loop because a handler may let the guest go on, and another guest's code follows. */
export function halt(): number[] {
  return [0xf4, 0xeb, 0xfd]
}

/** Prepares a guest whose writes are in the ledger. */
export function emit(vcpu: Vcpu | undefined): void {
  if (!vcpu) return
  const ledger = ledgerOf(vcpu.vm)
  // If the vCPU had another script, nobody knows how far it got in it.
  disturb(...ledger.scripts.filter((script) => script.vcpu === vcpu))
  const first = ledger.scripts.length * 6
  if (first + 6 > 256) return
  // Each script begins at another port, so that a handler gets a foreign write if one script's write takes another's place.
  const writes = new Map([0, 1, 2, 3, 4, 5].map((n) => [first + n, 0x10 + ((ledger.scripts.length + n) % 3)]))
  // mov $value, %al; out %al, $port
  const code = [...[...writes].flatMap(([value, port]) => [0xb0, value, 0xe6, port]), ...halt()]
  const ip = enterCode(vcpu, code)
  if (ip !== undefined) ledger.scripts.push({ vcpu, code: new Uint8Array(code), ip, writes, told: new Map() })
}

/** Prepares a guest that touches memory at an address, either directly or by an instruction that KVM emulates. */
export function run(vcpu: Vcpu | undefined, how: 'spin' | 'read' | 'write' | 'outs' | 'count' | 'halt', at: number): void {
  if (!vcpu) return
  const segment = (at >> 4) & 0xffff
  const toSegment = [0xb8, segment & 0xff, segment >> 8, 0x8e, 0xd8]
  const codes = {
    spin: [0xeb, 0xfe],
    // mov 0, %al; out %al, $0x20; hlt
    read: [...toSegment, 0xa0, 0, 0, 0xe6, 0x20, ...halt()],
    // movb $0x5a, 0; hlt
    write: [...toSegment, 0xc6, 0x06, 0, 0, 0x5a, ...halt()],
    // xor %si, %si; mov $0x20, %dx; cld; outsb; hlt
    outs: [...toSegment, 0x31, 0xf6, 0xba, 0x20, 0, 0xfc, 0x6e, ...halt()],
    // 1: incb 0; jmp 1b
    count: [...toSegment, 0xfe, 0x06, 0, 0, 0xeb, 0xfa],
    halt: halt()
  }
  disturb(...ledgerOf(vcpu.vm).scripts.filter((script) => script.vcpu === vcpu))
  enterCode(vcpu, codes[how])
}

/** Notes an exit that run(), a handler, or the end of a started run told. */
export function hear<T extends Exit | Promise<Exit | undefined>>(vcpu: Vcpu | undefined, told: T | undefined): T | undefined {
  if (!vcpu || told === undefined) return told
  if (told instanceof Promise)
    told.then(
      (end) => end && hear(vcpu, end),
      () => {}
    )
  else if ((told as Exit).reason === 'io-out') {
    const { port, data } = told as Extract<Exit, { reason: 'io-out' }>
    hearWrites(vcpu.vm, [{ address: port, data }])
  }
  return told
}

/** Notes the writes that a coalesced range's handler got: it must get those to its range, and no others. */
export function hearRange(vm: Vm | undefined, writes: readonly { address: number; data: Uint8Array }[], port: number, size: number): void {
  for (const { address } of writes)
    if (address < port || address >= port + size) report('wrong', `a handler of ${size} ports from ${port} on got a write to ${address}`)
  hearWrites(vm, writes)
}

export function hearWrites(vm: Library.VcpuHost | undefined, writes: readonly { address: number; data: Uint8Array }[]): void {
  if (!vm) return
  const { scripts } = ledgerOf(vm)
  for (const { address, data } of writes)
    for (const script of scripts) {
      const value = data[0] as number
      if (script.writes.get(value) !== address) continue
      const count = (script.told.get(value) ?? 0) + 1
      script.told.set(value, count)
      if (count === 2 && isReliable(script)) report('wrong', `a write of ${value} to port ${address} was told twice`)
    }
}

/** Whether the guest did what its script says, as far as it got: nobody changed its code or sent it elsewhere. */
export function isReliable(script: Script): boolean {
  const { vcpu, ip, code } = script
  const slot = vcpu.vm.closed ? undefined : vcpu.vm.memslots.lookup(ip)
  if (!slot || isDisturbed(script, vcpu, vcpu.vm, slot, slot.mapping)) return false
  try {
    return Buffer.compare(slot.mapping.read(ip - slot.gpa, code.length), code) === 0
  } catch {
    return false
  }
}

/** Lets the ledger's guests run to their end; then each write must have been told, except those that an ioeventfd took. */
export function judgeLedger(vm: Vm | undefined): void {
  if (!vm || vm.closed) return
  const { scripts, swallowed } = ledgerOf(vm)
  for (const script of scripts) {
    const { vcpu, told, writes } = script
    if (vcpu.closed || (vcpu.state !== undefined && vcpu.state !== 'stopped') || !isReliable(script)) continue
    let reason: string | undefined
    for (let runs = 0; runs < 20 && reason !== 'hlt'; runs++) {
      const exit = hear(
        vcpu,
        attempt(() => vcpu.run({ timeoutMs: 100 }))
      )
      if (exit === undefined) break
      reason = exit.reason
    }
    if (reason !== 'hlt' || !isReliable(script)) continue
    for (const [value, port] of writes)
      if (!told.has(value) && !swallowed.has(port)) report('wrong', `a write of ${value} to port ${port} was never told`)
  }
}
