/** What share() gives: by it a VM comes to another Worker. */
import { setImmediate as turn } from 'node:timers/promises'
import { KiB, Mapping, Vm } from 'node-kvm'
import { describe, expect, test } from 'vitest'
import { checkedError } from '../support/errors.js'
import { kvm, vm } from '../support/vm.js'
import { answer, worker } from '../support/worker.js'

const page = () => Mapping.anonymous(4 * KiB)
const gpa = 0x1_0000

describe('a token', () => {
  test('holds its VM until it is attached', async () => {
    const ram = page()
    ram.write(0, new Uint8Array([7]))
    const token = (() => {
      const dropped = kvm.createVm()
      dropped.memslots.create({ gpa, mapping: ram })
      return dropped.share()
    })()
    // Collected objects are released in a later turn.
    for (let round = 0; round < 10; round++) {
      globalThis.gc?.()
      await turn()
    }
    const attached = Vm.attach(token)
    expect(attached.memory.read(gpa, 1)).toEqual(new Uint8Array([7]))
    attached.close()
  })

  test('holds no VM that was closed by who created it, and says so', () => {
    const ram = page()
    const closed = kvm.createVm()
    closed.memslots.create({ gpa: 0, mapping: ram })
    const token = closed.share()
    closed.close()
    ram.close()
    expect(checkedError(() => Vm.attach(token), 'closed').message).toContain('was closed')
  })

  test('holds its VM no longer than the Worker that shared it lives', async () => {
    const sharer = worker(`
      globalThis.made = library.Kvm.open().createVm()
      parentPort.postMessage([made.share(), made.share()])
      parentPort.once('message', () => process.exit())`)
    sharer.postMessage(vm.share())
    const [first, second] = await answer(sharer)
    const held = Vm.attach(first)
    expect(held.memslots.length).toBe(0)
    held.close()
    await sharer.terminate()
    expect(checkedError(() => Vm.attach(second), 'closed').message).toContain('ended')
  })

  test('cannot be guessed from others', () => {
    const tokens = Array.from({ length: 64 }, () => vm.share().nodeKvmVm)
    const set = tokens.map((token) => token.toString(2).replaceAll('0', '').length).reduce((sum, bits) => sum + bits)
    expect(new Set(tokens).size).toBe(tokens.length)
    // These are 4096 random bits, so the limit is 12 standard deviations.
    expect(Math.abs(set - 2048)).toBeLessThan(12 * 32)
  })
})
