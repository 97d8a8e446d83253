import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { type ExitHandlers, KiB, Mapping, MiB, type Vcpu } from 'node-kvm'
import { describe, expect, test } from 'vitest'
import { programs, reader, writer } from '../../bench/guests.js'
import { checkedError } from '../support/errors.js'
import { patience } from '../support/patience.js'
import { inLab } from '../support/skip.js'
import { vm } from '../support/vm.js'

const times = (whole: number, lab: number) => (inLab ? lab : whole)
const [here, there] = [0x10_0000, 0x80_0000]
const words = { one: 0x1111_1111_1111_1111n, other: 0x2222_2222_2222_2222n }

function filled(word: bigint, size = 4 * KiB): Mapping {
  const mapping = Mapping.anonymous(size)
  mapping.write(0, new Uint8Array(new BigUint64Array(size / 8).fill(word).buffer))
  return mapping
}

/** Counts what a guest should not see, and answers its MMIO reads by the word that it expects. */
class Watch {
  mmio: { gpa: number; isWrite: boolean }[] = []
  wrong = 0
  readonly ended: Promise<unknown>[]
  readonly #vcpus: Vcpu[]

  constructor(vcpus: Vcpu[]) {
    this.#vcpus = vcpus
    const handlers: ExitHandlers = {
      'io-out': () => void this.wrong++,
      mmio: ({ gpa, isWrite, data }) => {
        this.mmio.push({ gpa, isWrite })
        if (!isWrite) data.fill(0x11)
      }
    }
    this.ended = vcpus.map((vcpu) => vcpu.start(handlers))
  }
  /** Waits until each guest has begun: with one processor, a guest's thread may come late. */
  async underway(counter: 'r9' | 'rbx' = 'r9'): Promise<this> {
    for (const vcpu of this.#vcpus)
      for (let done = false; !done; ) {
        await vcpu.pause()
        done = vcpu.registers.get()[counter] > 1n
        vcpu.resume()
        // This gives the guests time to get somewhere: a guest that is taken out at each fault makes no progress.
        await sleep(5)
      }
    return this
  }

  /** Expects that every run ended because it was told to, and that the guests did something. */
  async stop(counter: 'r9' | 'rbx' = 'r9'): Promise<void> {
    for (const vcpu of this.#vcpus) await vcpu.stop()
    for (const end of await Promise.all(this.ended)) expect(end).toEqual({ reason: 'stopped' })
    for (const vcpu of this.#vcpus) expect(vcpu.registers.get()[counter]).toBeGreaterThan(0n)
  }
}

// Case A04.
describe('memslots change under a guest that reads', () => {
  test('a bare move may show it MMIO, never other data', async () => {
    const slot = vm.memslots.create({ gpa: here, mapping: filled(words.one) })
    const watch = new Watch(programs(vm, [{ source: reader, registers: { rdi: BigInt(here), rbx: words.one, rdx: words.one } }]))
    await watch.underway()
    for (let round = 0; round < times(300, 10); round++) {
      slot.move(there)
      slot.move(here)
      if (round % 10 === 0) await turn()
    }
    await watch.stop()
    expect(watch.wrong).toBe(0)
    for (const access of watch.mmio) expect(access).toEqual({ gpa: here, isWrite: false })
  })

  test('slots that change places in a transaction show it one or the other, and no MMIO', async () => {
    const one = vm.memslots.create({ gpa: here, mapping: filled(words.one) })
    const other = vm.memslots.create({ gpa: there, mapping: filled(words.other) })
    const registers = { rbx: words.one, rdx: words.other }
    const watch = new Watch(
      programs(vm, [
        { source: reader, registers: { rdi: BigInt(here), ...registers } },
        { source: reader, registers: { rdi: BigInt(there), ...registers } }
      ])
    )
    await watch.underway()
    for (let round = 0; round < times(500, 15); round++) {
      vm.memslots.transaction((tx) => {
        tx.move(one, round % 2 ? here : there)
        tx.move(other, round % 2 ? there : here)
      })
      if (round % 10 === 0) await turn()
    }
    await watch.stop()
    expect(watch).toMatchObject({ wrong: 0, mmio: [] })
  })

  test('rebind() and resize() show it the old memory or the new, and no MMIO', async () => {
    const mappings = [filled(words.one, 8 * KiB), filled(words.other, 8 * KiB)] as const
    const slot = vm.memslots.create({ gpa: here, mapping: mappings[0] })
    const watch = new Watch(programs(vm, [{ source: reader, registers: { rdi: BigInt(here), rbx: words.one, rdx: words.other } }]))
    await watch.underway()
    for (let round = 0; round < times(300, 10); round++) {
      slot.rebind(mappings[(round + 1) % 2] as Mapping)
      slot.resize(round % 2 ? 4 * KiB : 8 * KiB)
      if (round % 10 === 0) await turn()
    }
    await watch.stop()
    expect(watch).toMatchObject({ wrong: 0, mmio: [] })
  })
})

describe('memory under load', () => {
  const size = times(16, 4) * MiB

  // Cases B01, B02, B03.
  test('memory is mapped and unmapped, by page and by 2 MiB, under a guest that writes', async () => {
    const mapping = Mapping.anonymous(size)
    vm.memslots.create({ gpa: here, mapping })
    const watch = new Watch(programs(vm, [{ source: writer, registers: { r8: BigInt(here), rsi: BigInt(here + size), rbx: 1n } }]))
    while (mapping.read(size - 4096, 1)[0] === 0) await turn()
    for (let offset = 0; offset < size; offset += times(4, 64) * KiB) {
      mapping.advise('dontneed', offset, 4 * KiB)
      if (offset % (64 * 4 * KiB) === 0) await turn()
    }
    for (let offset = 0; offset < size; offset += 2 * MiB) {
      mapping.advise('dontneed', offset, 2 * MiB)
      await turn()
    }
    // Every page was thrown away at least once, and the guest goes on: its next round writes every page anew.
    mapping.advise('dontneed')
    while (mapping.read(size - 4096, 1)[0] === 0) await turn()
    await watch.stop('rbx')
    expect(watch).toMatchObject({ wrong: 0, mmio: [] })
  })

  // Case B04.
  test('a slot that a guest writes to is moved, and MMIO writes come only inside it', async () => {
    const half = size / 2
    vm.memslots.create({ gpa: here, mapping: Mapping.anonymous(half) })
    const slot = vm.memslots.create({ gpa: here + half, mapping: Mapping.anonymous(half) })
    const watch = new Watch(programs(vm, [{ source: writer, registers: { r8: BigInt(here), rsi: BigInt(here + size), rbx: 1n } }]))
    await watch.underway('rbx')
    for (let round = 0; round < times(100, 5); round++) {
      slot.move(0x4000_0000)
      if (round % 10 === 0) await sleep(1)
      slot.move(here + half)
      await turn()
    }
    await watch.stop('rbx')
    for (const { gpa, isWrite } of watch.mmio) {
      expect(isWrite).toBe(true)
      expect(gpa).toBeGreaterThanOrEqual(here + half)
      expect(gpa).toBeLessThan(here + size)
    }
  })

  // Case B05.
  test('a slot that no guest uses is moved, and no MMIO comes at all', async () => {
    vm.memslots.create({ gpa: here, mapping: Mapping.anonymous(size) })
    const slot = vm.memslots.create({ gpa: 0x4000_0000, mapping: Mapping.anonymous(MiB) })
    const watch = new Watch(programs(vm, [{ source: writer, registers: { r8: BigInt(here), rsi: BigInt(here + size), rbx: 1n } }]))
    await watch.underway('rbx')
    for (let round = 0; round < times(300, 10); round++) {
      slot.move(round % 2 ? 0x4000_0000 : 0x5000_0000)
      if (round % 10 === 0) await turn()
    }
    await watch.stop('rbx')
    expect(watch).toMatchObject({ wrong: 0, mmio: [] })
  })

  // Case B06.
  test('the guest reads what the host writes, and the other way round, while it runs', async () => {
    const mapping = Mapping.anonymous(8 * KiB)
    vm.memslots.create({ gpa: here, mapping })
    // This guest copies each new value of the first page's word to the second page.
    const copier = '1: mov (%rdi), %rax; cmp %rbx, %rax; je 1b; mov %rax, 4096(%rdi); mov %rax, %rbx; inc %r9; jmp 1b'
    const watch = new Watch(programs(vm, [{ source: copier, registers: { rdi: BigInt(here), rbx: 0n } }]))
    const word = (value: number) => new Uint8Array(new BigUint64Array([BigInt(value)]).buffer)
    for (let value = 1; value <= times(200, 10); value++) {
      mapping.write(0, word(value))
      while (mapping.read(4096, 8).join() !== word(value).join()) await turn()
    }
    await watch.stop()
    expect(watch).toMatchObject({ wrong: 0, mmio: [] })
  })

  // Case B07.
  test('KVM_RUN never fails while a dummy slot comes and goes and vCPUs write elsewhere', async () => {
    vm.memslots.create({ gpa: here, mapping: Mapping.anonymous(2 * size) })
    const dummy = Mapping.anonymous(4 * KiB)
    const parts = [here, here + size].map((start) => ({ source: writer, registers: { r8: BigInt(start), rsi: BigInt(start + size), rbx: 1n } }))
    const watch = new Watch(programs(vm, parts))
    await watch.underway('rbx')
    for (let round = 0; round < times(500, 15); round++) {
      vm.memslots.create({ gpa: 0x4000_0000, mapping: dummy }).delete()
      if (round % 10 === 0) await turn()
    }
    await watch.stop('rbx')
    expect(watch).toMatchObject({ wrong: 0, mmio: [] })
  })
})

describe('transactions', () => {
  test('make slots, and give their ids back when they fail', () => {
    const slot = vm.memslots.create({ gpa: here, mapping: Mapping.anonymous(8 * KiB) })
    const before = vm.memslots.toString()
    const error = checkedError(
      () =>
        vm.memslots.transaction((tx) => {
          tx.move(slot, there)
          tx.create({ gpa: here, mapping: Mapping.anonymous(4 * KiB) })
          tx.create({ gpa: there, mapping: Mapping.anonymous(4 * KiB) })
        }),
      'overlap'
    )
    expect(error.message).toContain('0x800000')
    expect(vm.memslots.toString()).toBe(before)
    const made = vm.memslots.transaction((tx) => {
      tx.delete(slot)
      return tx.create({ gpa: here, mapping: Mapping.anonymous(4 * KiB), logDirty: true })
    })
    expect([slot.deleted, made.id, made.gpa, made.logDirty]).toEqual([true, 1, here, true])
    expect(vm.memslots.create({ gpa: there, mapping: Mapping.anonymous(4 * KiB) }).id).toBe(0)
  })

  test('leave the table as it was, in the kernel too, where the kernel refuses the last change', () => {
    const [one, other] = [filled(words.one), filled(words.other)]
    const slots = [vm.memslots.create({ gpa: here, mapping: one }), vm.memslots.create({ gpa: there, mapping: other })] as const
    const before = vm.memslots.toString()
    const error = checkedError(
      () =>
        vm.memslots.transaction((tx) => {
          tx.move(slots[0], there)
          tx.move(slots[1], here)
          tx.rebind(slots[0], filled(0n))
          // No kernel knows this flag.
          tx.create({ gpa: 0x900_0000, mapping: filled(0n), flags: 1 << 30 })
        }),
      'ioctl'
    )
    expect(error).toMatchObject({ errno: 'EINVAL', ioctl: 'KVM_SET_USER_MEMORY_REGION' })
    expect(vm.memslots.toString()).toBe(before)
    expect(vm.memslots.length).toBe(2)
    const [vcpu] = programs(vm, [
      { source: 'mov (%rdi), %rax; mov (%rsi), %rbx; out %al, $0x10', registers: { rdi: BigInt(here), rsi: BigInt(there) } }
    ])
    expect(vcpu?.run({ timeoutMs: patience }).reason).toBe('io-out')
    expect(vcpu?.registers.get()).toMatchObject({ rax: words.one, rbx: words.other })
    expect(vm.memslots.create({ gpa: 0x900_0000, mapping: filled(0n) }).id).toBe(3)
  })

  test('let through what is thrown in them, and change nothing then', () => {
    const slot = vm.memslots.create({ gpa: here, mapping: Mapping.anonymous(4 * KiB) })
    const before = vm.memslots.toString()
    expect(() =>
      vm.memslots.transaction((tx) => {
        tx.delete(slot)
        throw new Error('thought better')
      })
    ).toThrow('thought better')
    expect(vm.memslots.toString()).toBe(before)
  })

  test('are refused inside another one, as are asynchronous ones and changes after the end', () => {
    const slot = vm.memslots.create({ gpa: here, mapping: Mapping.anonymous(4 * KiB) })
    checkedError(() => vm.memslots.transaction(() => vm.memslots.transaction(() => {})), 'state')
    checkedError(() => vm.memslots.transaction(async (tx) => tx.delete(slot)), 'argument')
    checkedError(() => vm.memslots.transaction(5 as never), 'argument')
    let kept: { move(slot: unknown, gpa: number): void } | undefined
    vm.memslots.transaction((tx) => {
      kept = tx as never
    })
    checkedError(() => kept?.move(slot, there), 'state')
    checkedError(() => vm.memslots.transaction((tx) => tx.move({} as never, there)), 'argument')
    checkedError(() => vm.memslots.transaction((tx) => tx.move(slot, 5)), 'argument')
    expect(slot.gpa).toBe(here)
  })

  test('may be made by a handler of a vCPU whose exit is not answered yet', async () => {
    const slot = vm.memslots.create({ gpa: here, mapping: filled(words.one) })
    const [vcpu] = programs(vm, [{ source: 'out %al, $0x10; mov (%rdi), %rax; out %al, $0x20', registers: { rdi: BigInt(here) } }]) as [Vcpu]
    const end = await vcpu.start({
      'io-out': ({ port }) => {
        if (port === 0x20) void vcpu.stop()
        else vm.memslots.transaction((tx) => tx.rebind(slot, filled(words.other)))
      }
    })
    expect(end.reason).toBe('stopped')
    expect(vcpu.registers.get().rax).toBe(words.other)
  })
})

// Case H04.
test('a kick ends KVM_RUN through a signal mask that blocks everything', async () => {
  const [vcpu] = programs(vm, [{ source: '1: jmp 1b' }]) as [Vcpu]
  vcpu.setSignalMask(Array.from({ length: 64 }, (_, index) => index + 1))
  expect(vcpu.run({ timeoutMs: 20 }).reason).toBe('timeout')
  let kicks = 0
  const running = vcpu.start({ interrupted: () => void kicks++ })
  for (let kick = 1; kick <= 20; kick++) {
    vcpu.kick()
    while (kicks < kick) await turn()
  }
  await vcpu.stop()
  expect(await running).toEqual({ reason: 'stopped' })
  checkedError(() => vcpu.setSignalMask([0]), 'argument')
  checkedError(() => vcpu.setSignalMask([65]), 'argument')
})
