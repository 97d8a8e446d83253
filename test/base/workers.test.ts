import { KiB, Mapping, MiB, Vm } from 'node-kvm'
import { assemble } from 'node-kvm/testing'
import { expect, test } from 'vitest'
import { checkedError } from '../support/errors.js'
import { untilRunning } from '../support/running.js'
import { vm } from '../support/vm.js'
import { answer, spinning, worker } from '../support/worker.js'

test('a VM attached in a Worker has its memslots, memory and vCPUs', async () => {
  const ram = Mapping.memfd(2 * MiB)
  vm.memslots.create({ gpa: 0, mapping: ram })
  ram.write(0x1000, assemble('mov (0x2000), %al; out %al, $0x10; hlt', { mode: 'real', at: 0x1000 }))
  const vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })
  const other = worker(`
    vm.memory.write(0x2000, new Uint8Array([42]))
    const { data } = vm.vcpu(0).run()
    const [slot] = vm.memslots
    slot.move(0x800000)
    const more = vm.memslots.create({ gpa: 0, mapping: library.Mapping.anonymous(4096) })
    parentPort.postMessage({ value: data[0], kind: slot.mapping.kind, slot: slot.toJSON(), more: more.id, table: vm.memslots.toJSON() })
    setInterval(() => {}, 1000)`)
  other.postMessage(vm.share())
  const seen = await answer(other)
  expect(seen).toMatchObject({ value: 42, kind: 'memfd', slot: { id: 0, gpa: 0x80_0000, hva: ram.address }, more: 1 })
  expect(ram.read(0x2000, 1)[0]).toBe(42)
  // This environment's table follows, and so do its own objects.
  expect(vm.memslots.toJSON()).toEqual(seen.table)
  expect(vm.memslots.lookup(0x80_0000)?.mapping).toBe(ram)
  const foreign = vm.memslots.lookup(0)
  expect(foreign).toMatchObject({ id: 1, size: 4 * KiB })
  await other.terminate()
  // The slot holds its memory.
  vm.memory.write(0, new Uint8Array([1]))
  expect(vm.memory.read(0, 1)[0]).toBe(1)
  foreign?.delete()
  expect(vm.memslots.length).toBe(1)
  expect(vcpu.closed).toBe(false)
})

test('slots of one environment say so when another deleted them', async () => {
  const slot = vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4 * KiB) })
  const same = Vm.attach(vm.share())
  same.memslots.lookup(0)?.delete()
  expect(vm.memslots.length).toBe(0)
  expect(slot.deleted).toBe(true)
  checkedError(() => slot.move(0x1000), 'closed')
  slot.delete()
  expect(vm.memslots.create({ gpa: 0, mapping: slot.mapping }).id).toBe(0)
  expect(checkedError(() => same.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) }), 'overlap').message).toContain('slot 0')
  same.close()
  expect(vm.closed).toBe(false)
  expect(vm.memslots.length).toBe(1)
})

test('changes of another environment are told to whoever watches here', () => {
  const same = Vm.attach(vm.share())
  using log = vm.dirtyLog()
  log.collect()
  same.memslots.create({ gpa: 0x10_0000, mapping: Mapping.anonymous(8 * KiB) })
  expect(log.collect()).toEqual([{ gpa: 0x10_0000, size: 8 * KiB }])
  expect(log.collect()).toEqual([])
  same.memslots.lookup(0x10_0000)?.move(0x20_0000)
  expect(log.collect()).toEqual([{ gpa: 0x20_0000, size: 8 * KiB }])
  same.close()
})

test('a token serves once, and does not serve after close', () => {
  const token = vm.share()
  const same = Vm.attach(token)
  checkedError(() => Vm.attach(token), 'argument')
  for (const none of [undefined, null, 5, {}, { nodeKvmVm: 5 }, { nodeKvmVm: -1n }, { nodeKvmVm: 1n << 70n }])
    checkedError(() => Vm.attach(none as never), 'argument')
  const late = vm.share()
  vm.close()
  checkedError(() => Vm.attach(late), 'closed')
  expect(same.closed).toBe(true)
  checkedError(() => same.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) }), 'closed')
  checkedError(() => vm.share(), 'closed')
})

test("two Workers run a vCPU each; registers of the other's are refused, kicks arrive, and a second runner is refused", async () => {
  const first = spinning(vm)
  vm.memory.write(0x1800, assemble('sti; 1: jmp 1b', { mode: 'real', at: 0x1800 }))
  const second = vm.createVcpu().enter('real', { ip: 0x1800 })
  const runner = `
    parentPort.postMessage('running')
    const exit = vm.vcpu(ID).run()
    parentPort.postMessage(exit.reason)`
  const workers = [0, 1].map((id) => worker(runner.replace('ID', String(id))))
  for (const each of workers) each.postMessage(vm.share())
  expect(await Promise.all(workers.map(answer))).toEqual(['running', 'running'])
  await untilRunning(first)
  await untilRunning(second)
  // A vCPU on its way into the guest counts as running, too.
  await expect.poll(() => vm.memory.read(0x2000, 1)[0]).toBe(1)
  checkedError(() => first.run(), 'busy')
  checkedError(() => first.start({}), 'busy')
  const answers = Promise.all(workers.map(answer))
  first.kick()
  second.kick()
  expect(await answers).toEqual(['interrupted', 'interrupted'])
  expect(first.registers.get().rbx).not.toBe(0n)
  await Promise.all(workers.map((each) => each.terminate()))
})
