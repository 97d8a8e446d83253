import { capabilities, type ExitHandlers, Mapping, MiB, type RunEnd, type Vcpu } from 'node-kvm'
import { assemble } from 'node-kvm/testing'
import { beforeEach, expect, test } from 'vitest'
import { skip } from '../support/skip.js'
import { kvm, vm } from '../support/vm.js'

// The guest writes these to 0x10, where they are queued. Then it reads 0x20, for which it waits, writes the value to 0x21, and halts.
const written = [1, 2, 3, 4, 5, 6, 7, 8, 9]
const doneAt = 0x500

beforeEach(() => {
  const ram = Mapping.anonymous(MiB)
  vm.memslots.create({ gpa: 0, mapping: ram })
  const source = `xor %al, %al; mov $9, %cx; 1: inc %al; out %al, $0x10; loop 1b; movb $1, (${doneAt}); in $0x20, %al; out %al, $0x21; hlt`
  ram.write(0x1000, assemble(source, { mode: 'real', at: 0x1000 }))
})

/** Starts the vCPU, and returns when everything is queued and nothing was told yet. */
function start(vcpu: Vcpu, handlers: ExitHandlers): Promise<RunEnd> {
  const running = vcpu.start(handlers, { queued: [{ port: 0x10 }] })
  while (vm.memory.read(doneAt, 1)[0] === 0);
  vm.memory.write(doneAt, new Uint8Array(1))
  return running
}

test.each<[string, () => unknown]>([
  [
    'throws',
    () => {
      throw new Error('of the handler')
    }
  ],
  ['gives a promise that is rejected', () => Promise.reject(new Error('of the handler'))]
])('a handler that %s ends the run, and the writes that were made are told all the same, once', async (_, fail) => {
  const vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })
  const seen: unknown[] = []
  const handlers = (fails: boolean): ExitHandlers => ({
    'io-out': ({ data: [value] }) => {
      seen.push(value)
      return fails ? fail() : undefined
    },
    'io-in': (exit) => {
      seen.push('in')
      exit.data[0] = 0x77
    }
  })
  await expect(start(vcpu, handlers(true))).rejects.toThrow('of the handler')
  expect(seen.slice(0, 9)).toEqual(written)
  expect(vcpu.state).toBe('stopped')
  // It does not matter whether it was kicked before it read the port or after.
  expect((await vcpu.start(handlers(false))).reason).toBe('hlt')
  expect(seen).toEqual([...written, 'in', 0x77])
})

test('a handler that stops the vCPU hears of all that was written, and one that closes it of nothing more', async () => {
  const seenUntil = async (act: (vcpu: Vcpu) => void) => {
    const vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })
    const seen: unknown[] = []
    const running = start(vcpu, {
      'io-out': ({ data: [value] }) => {
        seen.push(value)
        if (value === 3) act(vcpu)
      },
      'io-in': () => {}
    })
    expect((await running).reason).toBe('stopped')
    return seen
  }
  expect(await seenUntil((vcpu) => void vcpu.stop())).toEqual(written)
  expect(await seenUntil((vcpu) => vcpu.close())).toEqual([1, 2, 3])
  expect(await seenUntil(() => vm.close())).toEqual([1, 2, 3])
})

test('a handler whose answer says twice that it is done lets the guest go on once', async () => {
  const vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })
  const seen: unknown[] = []
  const again: (() => void)[] = []
  const end = await vcpu.start({
    'io-out': ({ data: [value] }) => {
      seen.push(value)
      for (const done of again.splice(0)) done()
      // biome-ignore lint/suspicious/noThenProperty: what another library may give
      return { then: (done: () => void) => setImmediate(() => again.push(done) && done()) }
    },
    'io-in': async (exit) => {
      for (const done of again.splice(0)) done()
      await undefined
      exit.data[0] = 0x77
    }
  })
  expect(end.reason).toBe('hlt')
  expect(seen).toEqual([...written, 0x77])
})

test('coalesced writes that are older than a queued one come before it', async (context) => {
  if (kvm.capabilities.check(capabilities.COALESCED_PIO) === 0) skip(context, 'this kernel lacks KVM_CAP_COALESCED_PIO')
  const source = `mov $1, %al; out %al, $0x11; inc %al; out %al, $0x10; movb $1, (${doneAt}); in $0x20, %al; hlt`
  vm.memory.write(0x1000, assemble(source, { mode: 'real', at: 0x1000 }))
  const seen: unknown[] = []
  vm.coalesce({ port: 0x11, size: 1 }, (writes) => seen.push(...writes.map(({ data }) => data[0])))
  const vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })
  const end = await start(vcpu, { 'io-out': ({ data }) => seen.push(data[0]), 'io-in': () => {} })
  expect(end.reason).toBe('hlt')
  expect(seen).toEqual([1, 2])
})
