// Tests what may be done while a transaction is put together, and in which order its changes are made.
import { type DirtyLogMode, KiB, Mapping, type Memslot, type MemslotTransaction, Vm } from 'node-kvm'
import { beforeEach, describe, expect, test } from 'vitest'
import { native } from '../../lib/abi/native.js'
import { checkedError } from '../support/errors.js'
import { expectOneTable } from '../support/memslots.js'
import { kvm, vm } from '../support/vm.js'

const page = () => Mapping.anonymous(4 * KiB)
const gpas = (...slots: Memslot[]) => slots.map(({ gpa }) => gpa)

describe('while a transaction is put together', () => {
  let slot: Memslot
  let next: Memslot
  beforeEach(() => {
    slot = vm.memslots.create({ gpa: 0xa000, mapping: page() })
    next = vm.memslots.create({ gpa: 0x1_0000, mapping: page() })
  })

  const direct: Record<string, (made: Memslot) => unknown> = {
    'create()': () => vm.memslots.create({ gpa: 0x5_0000, mapping: page() }),
    'move()': () => slot.move(0xe000),
    'change()': () => slot.change({ gpa: 0xe000 }),
    'rebind()': () => slot.rebind(page()),
    'resize()': () => slot.resize(4 * KiB),
    'setFlags()': () => slot.setFlags({ logDirty: true }),
    'delete()': () => slot.delete(),
    'move() of a slot that it has not named': () => next.move(0xe000),
    'move() of a slot that it is to make': (made) => made.move(0xe000),
    'delete() of a slot that it is to make': (made) => made.delete(),
    'another transaction': () => vm.memslots.transaction(() => {}),
    'vm.close()': () => vm.close(),
    "vm.dirtyLog({ mode: 'bitmap' })": () => vm.dirtyLog(),
    "vm.dirtyLog({ mode: 'ring' })": () => vm.dirtyLog({ mode: 'ring' })
  }
  test.each(Object.entries(direct))('%s is refused, and the transaction goes on', (_, change) => {
    vm.memslots.transaction((tx) => {
      tx.move(slot, 0xb000)
      const made = tx.create({ gpa: 0x2_0000, mapping: page() })
      checkedError(() => change(made), 'state')
      expect(vm.closed).toBe(false)
    })
    expect([...vm.memslots].map(({ gpa, logDirty }) => [gpa, logDirty])).toEqual([
      [0xb000, false],
      [0x1_0000, false],
      [0x2_0000, false]
    ])
    expectOneTable(vm)
    slot.move(0xe000)
    vm.createVcpu().close()
    expectOneTable(vm)
  })

  test.each(Object.entries(direct))('an error of %s that is not caught is the end of it, and nothing is changed', (_, change) => {
    let made: Memslot | undefined
    checkedError(
      () =>
        vm.memslots.transaction((tx) => {
          tx.move(slot, 0xb000)
          made = tx.create({ gpa: 0x2_0000, mapping: page() })
          change(made)
        }),
      'state'
    )
    expect(gpas(...vm.memslots)).toEqual([0xa000, 0x1_0000])
    expectOneTable(vm)
    expect(made?.deleted).toBe(true)
    checkedError(() => made?.move(0xe000), 'closed')
    made?.delete()
    // Ids and places are as free as before.
    expect(vm.memslots.create({ gpa: 0x2_0000, mapping: page() }).id).toBe(2)
    expectOneTable(vm)
  })

  test.each<DirtyLogMode>(['bitmap', 'manual'])('an open dirty log (%s) waits', (mode) => {
    using log = vm.dirtyLog({ mode })
    expect(log.collect()).toHaveLength(2)
    vm.memslots.transaction((tx) => {
      tx.move(slot, 0xb000)
      for (const use of [() => log.collect(), () => log.harvest(), () => log.mark(0xa000, 1), () => log.close(), () => vm.close()])
        checkedError(use, 'state')
    })
    expect(log.closed).toBe(false)
    expect(log.collect()).toEqual([{ gpa: 0xb000, size: 4 * KiB }])
    log.close()
    expect([...vm.memslots].map(({ logDirty }) => logDirty)).toEqual([false, false])
  })

  test.each<[string, (tx: MemslotTransaction) => void]>([
    ['ended', () => {}],
    [
      'failed',
      () => {
        throw new RangeError('changed my mind')
      }
    ]
  ])('its object is of no use once it %s', (_, end) => {
    let kept: MemslotTransaction | undefined
    const make = () =>
      vm.memslots.transaction((tx) => {
        kept = tx
        end(tx)
      })
    try {
      make()
    } catch (error) {
      expect(error).toBeInstanceOf(RangeError)
    }
    const tx = kept as MemslotTransaction
    const late = [
      () => tx.create({ gpa: 0, mapping: page() }),
      () => tx.move(slot, 0),
      () => tx.rebind(slot, page()),
      () => tx.resize(slot, 4096),
      () => tx.setFlags(slot, { logDirty: true }),
      () => tx.delete(slot)
    ]
    for (const use of late) checkedError(use, 'state')
    expectOneTable(vm)
  })

  test('a slot that it makes and deletes again is deleted', () => {
    const made = vm.memslots.transaction((tx) => {
      const made = tx.create({ gpa: 0x2_0000, mapping: page() })
      tx.delete(made)
      checkedError(() => tx.move(made, 0), 'closed')
      return made
    })
    expect(made.deleted).toBe(true)
    expectOneTable(vm)
  })

  test('what another environment makes may have its own transaction inside', () => {
    const same = Vm.attach(vm.share())
    vm.memslots.transaction((tx) => {
      tx.move(slot, 0xb000)
      same.memslots.transaction((inner) => inner.create({ gpa: 0x2_0000, mapping: page() }))
    })
    expectOneTable(vm, same)
    same.close()
  })
})

describe('the order of changes', () => {
  /** Slots at 0, 4 KiB, ... with a dirty log each. */
  const row = (count: number) =>
    Array.from({ length: count }, (_, index) => vm.memslots.create({ gpa: index * 4096, mapping: page(), logDirty: true }))
  const places = { rotation: [1, 2, 3, 4, 0], reversal: [4, 3, 2, 1, 0], shift: [1, 2, 3, 4, 5], twoCircles: [1, 0, 3, 4, 2], knot: [2, 0, 1, 5, 3] }

  test.each(Object.entries(places))('leaves a %s whole, however the slots are named', (_, to) => {
    for (let start = 0; start < to.length; start++) {
      const slots = row(to.length)
      vm.memslots.transaction((tx) => {
        for (let step = 0; step < to.length; step++) {
          const index = (start + 2 * step) % to.length
          tx.move(slots[index] as Memslot, (to[index] as number) * 4096)
        }
      })
      expect(gpas(...slots)).toEqual(to.map((place) => place * 4096))
      expectOneTable(vm)
      for (const slot of slots) slot.delete()
    }
  })

  test('leaves whole what moves farther than its size, is deleted, new or bound to other memory in one', () => {
    const large = Mapping.anonymous(64 * KiB)
    const [one, two, three] = [0, 1, 2].map((index) => vm.memslots.create({ gpa: index * 64 * KiB, mapping: large })) as [Memslot, Memslot, Memslot]
    const memory = Mapping.anonymous(32 * KiB)
    const made = vm.memslots.transaction((tx) => {
      tx.move(one, 16 * KiB)
      tx.resize(one, 32 * KiB)
      tx.rebind(two, Mapping.anonymous(64 * KiB))
      tx.move(two, 48 * KiB)
      tx.delete(three)
      return tx.create({ gpa: 128 * KiB, mapping: memory })
    })
    expect(gpas(one, two, made)).toEqual([16 * KiB, 48 * KiB, 128 * KiB])
    expect(three.deleted).toBe(true)
    expect(made.mapping).toBe(memory)
    expectOneTable(vm)
  })

  test('does not show where the kernel refuses one in the middle: everything is as before, and nobody sees a change', () => {
    const slots = row(5)
    const same = Vm.attach(vm.share())
    const before = JSON.stringify(same.memslots)
    const mapping = page()
    for (const first of [true, false]) {
      // No kernel knows this flag.
      const impossible = (tx: MemslotTransaction) => tx.create({ gpa: 0x900_0000, mapping, flags: 1 << 30 })
      const error = checkedError(
        () =>
          vm.memslots.transaction((tx) => {
            if (first) impossible(tx)
            slots.forEach((slot, index) => void tx.move(slot, ((index + 1) % 5) * 4096))
            tx.rebind(slots[0] as Memslot, mapping)
            tx.move(slots[4] as Memslot, 8 * 4096)
            if (!first) impossible(tx)
          }),
        'ioctl'
      )
      expect(error.message).toContain('at gpa 0x')
      expect(JSON.stringify(vm.memslots)).toBe(before)
      expectOneTable(vm, same)
    }
    mapping.close()
    // The slots' states are as before, too: no environment is told of a conflict because of it.
    same.memslots.transaction((tx) => tx.delete(same.memslots.lookup(0) as Memslot))
    slots[1]?.move(0)
    expectOneTable(vm, same)
    same.close()
  })

  test('does not hide a slot that stands in the way: it is named, and one of the transaction itself is told as such', () => {
    const [one, two] = row(3) as [Memslot, Memslot, Memslot]
    const refusal = (change: (tx: MemslotTransaction) => void) => checkedError(() => vm.memslots.transaction(change), 'overlap')
    expect(refusal((tx) => tx.move(one, 2 * 4096))['present']).toEqual({ id: 2, gpa: 2 * 4096, size: 4096 })
    const both = refusal((tx) => {
      tx.move(one, 0x10_0000)
      tx.move(two, 0x10_0000)
    })
    expect(both['present']).toMatchObject({ gpa: 0x10_0000 })
    expect(
      refusal((tx) => {
        tx.create({ gpa: 0x10_0000, mapping: page() })
        tx.move(two, 0x10_0000)
      }).message
    ).toContain('another slot of the transaction')
    expectOneTable(vm)
  })
})

test('the add-on refuses numbers that are none, slots that are named twice, and regions that are none', () => {
  const system = native.open('/dev/kvm', true) as Exclude<ReturnType<typeof native.open>, number>
  const bare = system.createVm(0) as Exclude<ReturnType<typeof system.createVm>, number>
  const region = native.map({ kind: 'anonymous', size: 4096 }) as Exclude<ReturnType<typeof native.map>, number>
  const created = [-1, 0, 0, 4096, 0, 0, -1, 0]
  const make = (...numbers: number[]) => bare.changeMemslots(new Float64Array(numbers), [region, region])
  for (const [place, value] of [
    [0, 0.5],
    [0, -2],
    [1, Number.NaN],
    [2, -1],
    [3, 2 ** 60],
    [4, Infinity],
    [5, 2 ** 32],
    [6, 0.5]
  ] as [number, number][])
    expect(() => make(...created.with(place, value))).toThrow(RangeError)
  const alone = new Float64Array(bare.memslotWords)
  for (const none of [{}, undefined, 5, 'region', bare] as never[]) {
    expect(() => bare.changeMemslots(new Float64Array(created), [none])).toThrow(TypeError)
    alone.set(created)
    expect(() => bare.changeMemslot(none)).toThrow(TypeError)
  }
  expect(() => bare.changeMemslots(new Uint8Array(64) as never, [region])).toThrow(TypeError)
  expect(() => bare.changeMemslots(new Float64Array(7), [region])).toThrow(TypeError)
  // These go past the region's end, have size 0, have no region, or name a slot that does not exist.
  for (const numbers of [created.with(3, 8192), created.with(4, 4096), created.with(3, 0), [0, 1, 0, 4096, 0, 0, -1, 0]])
    expect(make(...numbers)).toBeLessThan(0)
  expect(bare.changeMemslots(new Float64Array(created), [null])).toBeLessThan(0)
  const records = new Float64Array(created)
  expect(bare.changeMemslots(records, [region])).toBe(0)
  expect([...records.subarray(0, 2)]).toEqual([0, 1])
  const moved = [0, 1, 0x1_0000, 4096, 0, 0, -1, 0]
  expect(make(...moved, ...moved)).toBeLessThan(0)
  expect(bare.generation).toBe(1)
  bare.close()
  // Whether the VM is closed or not, a refusal says which change it concerns.
  const late = new Float64Array(moved)
  expect(bare.changeMemslots(late, [null])).toBeLessThan(0)
  expect([...late.subarray(0, 2)]).toEqual([-1, 0])
  system.close()
  expect(kvm.closed).toBe(false)
})
