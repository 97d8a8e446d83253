// Several environments change one VM's memslots. Two Vm objects for one VM are two environments, and take turns where a test wants that.

import { spawnSync } from 'node:child_process'
import { type DirtyLogMode, KiB, type KvmErrorCode, Mapping, type Memslot, MiB, Vm } from 'node-kvm'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { built, library } from '../support/built.js'
import { checkedError } from '../support/errors.js'
import { expectOneTable } from '../support/memslots.js'
import { patience } from '../support/patience.js'
import { isMapped } from '../support/process.js'
import { untilRunning } from '../support/running.js'
import { skip } from '../support/skip.js'
import { refused } from '../support/tables.js'
import { kvm, vm } from '../support/vm.js'
import { answer, sourceOf, worker } from '../support/worker.js'

const page = () => Mapping.anonymous(4 * KiB)
const [here, there, elsewhere] = [0x1_0000, 0x2_0000, 0x3_0000]

/** The other environment. */
let other: Vm
beforeEach(() => {
  other = Vm.attach(vm.share())
})
afterEach(() => other.close())

describe('a slot that another environment changed', () => {
  let one: Memslot
  let two: Memslot
  let theirs: Memslot
  beforeEach(() => {
    one = vm.memslots.create({ gpa: here, mapping: page() })
    two = vm.memslots.create({ gpa: there, mapping: page() })
    theirs = other.memslots.lookup(here) as Memslot
  })

  const swap = () =>
    other.memslots.transaction((tx) => {
      tx.move(theirs, there)
      tx.move(other.memslots.lookup(there) as Memslot, here)
    })
  const replace = () => {
    theirs.delete()
    expect(other.memslots.create({ gpa: 0x4_0000, mapping: page() }).id).toBe(one.id)
  }
  type Case = [
    what: string,
    stage: (tx: Parameters<Parameters<Vm['memslots']['transaction']>[0]>[0]) => void,
    meanwhile: () => void,
    code: KvmErrorCode
  ]
  test.each<Case>([
    [
      'was exchanged with another',
      (tx) => {
        tx.move(one, here)
        tx.move(two, there)
      },
      () => swap(),
      'conflict'
    ],
    ['moved before its flags change', (tx) => tx.setFlags(one, { logDirty: true }), () => theirs.move(elsewhere), 'conflict'],
    ['moved before it is bound to other memory', (tx) => tx.rebind(one, page()), () => theirs.move(elsewhere), 'conflict'],
    ['moved before it moves', (tx) => tx.move(one, 0x5_0000), () => theirs.move(elsewhere), 'conflict'],
    ['moved away and back', (tx) => tx.move(one, 0x5_0000), () => [elsewhere, here].forEach((gpa) => theirs.move(gpa)), 'conflict'],
    ['is deleted', (tx) => tx.move(one, elsewhere), () => theirs.delete(), 'conflict'],
    ['is deleted, and its number another slot has', (tx) => tx.move(one, elsewhere), () => replace(), 'conflict'],
    ['is deleted before it is to be', (tx) => tx.delete(one), () => replace(), 'conflict'],
    [
      'moved, and a new one stands where another shall',
      (tx) => {
        tx.move(one, there + 0x10_0000)
        tx.move(two, 0x5_0000)
      },
      () => {
        theirs.move(elsewhere)
        other.memslots.create({ gpa: 0x5_0000, mapping: page() })
      },
      'conflict'
    ]
  ])('%s: the transaction is refused whole, and the tables are the newest', (_, stage, meanwhile, code) => {
    checkedError(
      () =>
        vm.memslots.transaction((tx) => {
          stage(tx)
          meanwhile()
        }),
      code
    )
    expectOneTable(vm, other)
    // A transaction that is computed anew, from the present state, is made.
    if (!one.deleted) vm.memslots.transaction((tx) => tx.move(one, 0x7_0000))
    expectOneTable(vm, other)
  })

  test('a look at the table does not make what was staged before newer', () => {
    checkedError(
      () =>
        vm.memslots.transaction((tx) => {
          tx.move(one, 0x5_0000)
          theirs.move(elsewhere)
          expect(vm.memslots.lookup(elsewhere)).toBe(one)
          tx.setFlags(one, { logDirty: true })
        }),
      'conflict'
    )
    expect(one.gpa).toBe(elsewhere)
    // The slot is named to this transaction only after the change, so the transaction is made.
    vm.memslots.transaction((tx) => {
      theirs.move(here)
      expect(vm.memslots.lookup(here)).toBe(one)
      tx.move(one, 0x5_0000)
    })
    expectOneTable(vm, other)
  })

  test("slots that it does not name may change during a transaction's function", () => {
    vm.memslots.transaction((tx) => {
      tx.move(two, 0x5_0000)
      theirs.move(elsewhere)
    })
    expectOneTable(vm, other)
  })

  test('a single change is made to the slot as it is then', () => {
    theirs.move(elsewhere)
    one.setFlags({ logDirty: true })
    expect(one).toMatchObject({ gpa: elsewhere, logDirty: true })
    theirs.resize(4 * KiB)
    one.move(0x5_0000)
    expect(one).toMatchObject({ gpa: 0x5_0000, logDirty: true })
    theirs.move(here)
    const memory = page()
    one.rebind(memory)
    expect(one).toMatchObject({ gpa: here, mapping: memory })
    theirs.setFlags({ logDirty: false })
    expect(one.getDirtyLog.bind(one)).toThrow('keeps no dirty log')
    expectOneTable(vm, other)
  })

  test('a slot that has the number of a deleted one is another', () => {
    one.delete()
    const next = vm.memslots.create({ gpa: elsewhere, mapping: page(), logDirty: true })
    expect(next.id).toBe(theirs.id)
    theirs.delete()
    expect(theirs.deleted).toBe(true)
    expect(next.deleted).toBe(false)
    for (const change of [() => theirs.move(0), () => theirs.resize(4 * KiB), () => theirs.setFlags({}), () => theirs.getDirtyLog()])
      checkedError(change, 'closed')
    const seen = other.memslots.lookup(elsewhere) as Memslot
    expect(seen).not.toBe(theirs)
    expect(next.getDirtyLog()).toHaveLength(8)
    expectOneTable(vm, other)
  })

  test('both ranges of an overlap are told as they are when it is refused', () => {
    theirs.move(elsewhere)
    expect(checkedError(() => vm.memslots.create({ gpa: elsewhere, mapping: page() }), 'overlap')['present']).toEqual({
      id: one.id,
      gpa: elsewhere,
      size: 4 * KiB
    })
    vm.memslots.create({ gpa: here, mapping: page() })
    checkedError(() => theirs.move(here), 'overlap')
    expectOneTable(vm, other)
  })
})

test('a mapping whose handle ended goes when another environment binds its slot to other memory', async () => {
  const ram = Mapping.anonymous(2 * MiB)
  const { address } = ram
  vm.memslots.create({ gpa: here, mapping: ram })
  ram[Symbol.dispose]()
  other.memslots.lookup(here)?.rebind(Mapping.anonymous(2 * MiB))
  // This is the other environment's own handle, for the memory that it found in the table.
  other.close()
  expect(vm.memslots.length).toBe(1)
  const isHeld = () => {
    globalThis.gc?.()
    return isMapped(address)
  }
  await expect.poll(isHeld).toBe(false)
})

describe('the end of a VM', () => {
  test('is the end of its memslots for all, whose memory is let go', async () => {
    const ram = Mapping.anonymous(2 * MiB)
    const slot = vm.memslots.create({ gpa: 0, mapping: ram })
    const theirs = other.memslots.lookup(0) as Memslot
    const others = worker(`
      const slot = vm.memslots.lookup(0)
      parentPort.once('message', () => {
        const code = (change) => { try { change() } catch (error) { return error.code } }
        const { memslots } = vm
        parentPort.postMessage([memslots.length, memslots.lookup(0), [...memslots], slot.deleted, code(() => slot.move(4096)), code(() => vm.memory.read(0, 1))])
      })
      parentPort.postMessage(slot.size)`)
    others.postMessage(vm.share())
    expect(await answer(others)).toBe(2 * MiB)
    vm.close()
    for (const { memslots } of [vm, other]) {
      expect(memslots.length).toBe(0)
      expect(memslots.lookup(0)).toBeUndefined()
      expect([...memslots]).toEqual([])
    }
    expect(slot.deleted && theirs.deleted).toBe(true)
    checkedError(() => theirs.move(0x1000), 'closed')
    checkedError(() => other.memslots.create({ gpa: 0, mapping: page() }), 'closed')
    checkedError(() => other.memslots.transaction(() => {}), 'closed')
    theirs.delete()
    ram.close()
    others.postMessage('closed')
    expect(await answer(others)).toEqual([0, undefined, [], true, 'closed', 'closed'])
    await others.terminate()
  })

  test("comes in the middle of another environment's transactions, each of which ends whole, or with `closed`", async () => {
    for (let round = 0; round < 10; round++) {
      using target = kvm.createVm()
      target.memslots.create({ gpa: here, mapping: page() })
      const others = worker(`
        const [slot] = vm.memslots
        parentPort.postMessage('begun')
        for (let at = ${there}; ; at += 4096)
          try { vm.memslots.transaction((tx) => { tx.move(slot, at); tx.create({ gpa: 0, mapping: library.Mapping.anonymous(4096) }); tx.rebind(slot, library.Mapping.anonymous(4096)) }); [...vm.memslots][0]?.delete() }
          catch (error) { parentPort.postMessage([error.code, error.errno]); break }`)
      others.postMessage(target.share())
      expect(await answer(others)).toBe('begun')
      target.close()
      expect(await answer(others)).toEqual(['closed', undefined])
      await others.terminate()
    }
  })

  test('lets go of memory that a guest writes in another Worker: what lies there next is not touched', async (context) => {
    const ram = Mapping.anonymous(2 * MiB)
    const { address } = ram
    vm.memslots.create({ gpa: 0, mapping: ram })
    // In real mode: 1: incw 0x2000; jmp 1b.
    ram.write(0x1000, new Uint8Array([0xff, 0x06, 0x00, 0x20, 0xeb, 0xfa]))
    const vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })
    const runner = worker(`
      const vcpu = vm.vcpu(0)
      parentPort.postMessage('running')
      try { parentPort.postMessage(vcpu.run().reason) } catch (error) { parentPort.postMessage(error.code) }`)
    runner.postMessage(vm.share())
    expect(await answer(runner)).toBe('running')
    await untilRunning(vcpu)
    const ended = answer(runner)
    vm.close()
    ram.close()
    expect(isMapped(address)).toBe(false)
    let next: Mapping
    try {
      next = Mapping.anonymous(2 * MiB, { address, fixed: true })
    } catch {
      await runner.terminate()
      skip(context, 'another thread of the process was faster to map something there')
    }
    expect(await ended).toBe('closed')
    expect(next.read(0, 2 * MiB).every((byte) => byte === 0)).toBe(true)
    await runner.terminate()
  })

  test("comes inside the function of another environment's transaction, and nothing is changed", () => {
    const slot = other.memslots.create({ gpa: 0, mapping: page() })
    checkedError(
      () =>
        other.memslots.transaction((tx) => {
          tx.move(slot, here)
          vm.close()
        }),
      'closed'
    )
    expect(other.memslots.length).toBe(0)
    expect(slot.deleted).toBe(true)
  })

  test('does not come when one environment lets go of it, which leaves its slots to the others', () => {
    const ram = page()
    const slot = vm.memslots.create({ gpa: 0, mapping: ram })
    const theirs = other.memslots.lookup(0) as Memslot
    other.close()
    expect(other.memslots.length).toBe(0)
    expect(theirs.deleted).toBe(true)
    expect(slot.deleted).toBe(false)
    checkedError(() => ram.close(), 'in-use')
  })
})

test("four Workers change the same memslots: none is lost or doubled, and the tables are the kernel's", () => {
  const program = built('bench/memslots-stress.js')
  const { stdout, stderr, status } = spawnSync(process.execPath, [program, '--seconds', '2'], { encoding: 'utf8', timeout: patience })
  expect(stderr).toBe('')
  expect(JSON.parse(stdout)).toMatchObject({ lost: 0, double: 0, equalToKernel: refused ? null : true, ok: true })
  expect(status).toBe(0)
})

test.for<DirtyLogMode>(['bitmap', 'manual'])('a dirty log (%s) goes on while a Worker makes, moves and deletes slots', async (mode) => {
  const calm = vm.memslots.create({ gpa: 0, mapping: page() })
  const stop = new Int32Array(new SharedArrayBuffer(4))
  const changing = worker(`
    parentPort.once('message', (stop) => {
      parentPort.postMessage('begins')
      const mapping = library.Mapping.anonymous(8192)
      while (Atomics.load(stop, 0) === 0) {
        const slot = vm.memslots.create({ gpa: 0x10_0000, mapping })
        slot.resize(4096)
        slot.move(0x20_0000)
        slot.setFlags({ logDirty: false })
        slot.delete()
      }
      parentPort.postMessage('ends')
    })
    parentPort.postMessage('attached')`)
  changing.postMessage(vm.share())
  await answer(changing)
  changing.postMessage(stop)
  await answer(changing)
  const ended = answer(changing)
  const log = vm.dirtyLog({ mode })
  try {
    for (let round = 0; round < 400; round++) log.collect()
    // To turn logging off, at the end of a log, is a change of every slot.
    for (let round = 0; round < 40; round++) {
      log.close()
      vm.dirtyLog({ mode }).close()
    }
  } finally {
    Atomics.store(stop, 0, 1)
    expect(await ended).toBe('ends')
    await changing.terminate()
  }
  using again = vm.dirtyLog({ mode })
  expect(again.collect()).toEqual([{ gpa: 0, size: 4 * KiB }])
  vm.memory.write(0, new Uint8Array([1]))
  expect(again.collect()).toEqual([{ gpa: 0, size: 4 * KiB }])
  expect(again.collect()).toEqual([])
  again.close()
  expect(calm.logDirty).toBe(false)
  expectOneTable(vm)
})

// A thread that waits for its turn to change the memslots waits, like the thread whose turn it is, for all vCPUs: so no vCPU may wait for such a
// thread. If KVM itself makes the guest's access, no signal ends the wait for the page.
test('a thread that serves pages and waits for another transaction hangs nobody', (context) => {
  using probe = page()
  try {
    probe.onMissing(() => null).close()
  } catch (error) {
    skip(context, (error as Error).message)
  }
  const server = `
    const slot = vm.memslots.lookup(0x8000)
    slot.mapping.onMissing(() => new Uint8Array(4096).fill(7))
    parentPort.once('message', (turn) => {
      Atomics.wait(turn, 0, 0)
      pause()
      vm.memslots.create({ gpa: 0x20_0000, mapping: library.Mapping.anonymous(4096) })
      console.log('created')
    })
    parentPort.postMessage('served')`
  const source = `
    const pause = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100)
    const { Worker } = require('node:worker_threads')
    const { once } = require('node:events')
    import(${library}).then(async ({ Kvm, Mapping }) => {
      const vm = Kvm.open().createVm()
      const ram = Mapping.anonymous(0x8000)
      // In real mode: mov $0x8000, %si; mov $0x10, %dx; cld; outsb; hlt.
      ram.write(0, new Uint8Array([0xbe, 0x00, 0x80, 0xba, 0x10, 0x00, 0xfc, 0x6e, 0xf4]))
      vm.memslots.create({ gpa: 0, mapping: ram })
      vm.memslots.create({ gpa: 0x8000, mapping: Mapping.anonymous(0x8000) })
      const server = new Worker(${JSON.stringify(`const pause = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100)
        ${sourceOf(server)}`)}, { eval: true })
      server.postMessage(vm.share())
      await once(server, 'message')
      // The server serves no page from now on, until it has had its turn.
      const turn = new Int32Array(new SharedArrayBuffer(4))
      server.postMessage(turn)
      pause()
      void vm.createVcpu().enter('real', { ip: 0 }).start({}).catch(() => {})
      pause()
      Atomics.store(turn, 0, 1)
      Atomics.notify(turn, 0)
      vm.memslots.transaction((tx) => tx.create({ gpa: 0x10_0000, mapping: Mapping.anonymous(4096) }))
      console.log('made')
      await once(server, 'exit')
      process.exit()
    })`
  const { stdout, stderr, signal } = spawnSync(process.execPath, ['-e', source], { encoding: 'utf8', timeout: patience })
  expect([signal, stderr]).toEqual([null, ''])
  expect(stdout.trim().split('\n').sort()).toEqual(['created', 'made'])
})
