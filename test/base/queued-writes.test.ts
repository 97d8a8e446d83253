import { type Exit, KiB, MiB } from 'node-kvm'
import { assemble } from 'node-kvm/testing'
import { describe, expect, test } from 'vitest'
import { patience } from '../support/patience.js'
import { realModeGuest } from '../support/running.js'
import { inLab } from '../support/skip.js'
import { vm } from '../support/vm.js'

describe('queued writes', () => {
  test('come in order, before any later exit, and without an exit each', async () => {
    const vcpu = realModeGuest(
      vm,
      'mov $200, %cx; mov $0x3f8, %dx; 1: mov %cl, %al; out %al, %dx; loop 1b; in $0x60, %al; out %al, $0x80; out %al, %dx; hlt'
    )
    const seen: (number | string)[] = []
    const end = await vcpu.start(
      {
        'io-out': ({ port, data }) => seen.push(port === 0x80 ? 'other' : (data[0] as number)),
        'io-in': (exit) => {
          seen.push('in')
          exit.data[0] = 77
        }
      },
      { queued: [{ port: 0x3f8 }] }
    )
    expect(end.reason).toBe('hlt')
    expect(seen).toEqual([...Array.from({ length: 200 }, (_, index) => 200 - index), 'in', 'other', 77])
  })

  test('leave the exit after them as it was though their handler runs another vCPU', async () => {
    const other = realModeGuest(vm, '1: out %al, $0x21; jmp 1b')
    const vcpu = vm.createVcpu().enter('real', { ip: 0x1800 })
    vm.memory.write(0x1800, assemble('out %al, $0x10; out %ax, $0x20; hlt', { mode: 'real', at: 0x1800 }))
    const seen: unknown[] = []
    await vcpu.start(
      {
        'io-out': ({ port, size }) => {
          if (port === 0x10) seen.push(other.run())
          else seen.push([port, size])
        }
      },
      { queued: [{ port: 0x10 }] }
    )
    expect(seen).toMatchObject([{ port: 0x21, size: 1 }, [0x20, 2]])
  })

  test('of MMIO carry their address and data', async () => {
    const vcpu = realModeGuest(vm, 'mov $0xf000, %ax; mov %ax, %ds; movl $0x11223344, (8); movw $0x5566, (16); hlt')
    vm.memslots.lookup(0)?.resize(MiB - 64 * KiB)
    const seen: Exit[] = []
    const end = await vcpu.start({ mmio: (exit) => void seen.push(exit) }, { queued: [{ gpa: 0xf0000, size: 4096 }] })
    expect(end.reason).toBe('hlt')
    expect(seen).toMatchObject([
      { gpa: 0xf0008, isWrite: true, size: 4, data: new Uint8Array([0x44, 0x33, 0x22, 0x11]) },
      { gpa: 0xf0010, size: 2, data: new Uint8Array([0x66, 0x55]) }
    ])
  })

  test('are all delivered though a handler throws, and the exit after them is there for the next run', async () => {
    const vcpu = realModeGuest(vm, 'mov $0x3f8, %dx; mov $9, %cx; 1: mov %cl, %al; out %al, %dx; loop 1b; in $0x60, %al; mov %al, %bl; hlt')
    const seen: number[] = []
    const running = vcpu.start(
      {
        'io-out': ({ data }) => {
          seen.push(data[0] as number)
          if (seen.length === 2) throw new Error('of the handler')
        },
        'io-in': () => expect.unreachable()
      },
      { queued: [{ port: 0x3f8 }] }
    )
    // Everything is written, and the exit is there, before the event loop comes to look.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, inLab ? 2000 : 100)
    await expect(running).rejects.toThrow('of the handler')
    expect(seen).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1])
    const exit = vcpu.run({ timeoutMs: patience })
    expect(exit).toMatchObject({ reason: 'io-in', port: 0x60 })
    if (exit.reason === 'io-in') exit.data[0] = 0x55
    expect(vcpu.run({ timeoutMs: patience })).toEqual({ reason: 'hlt' })
    expect(vcpu.registers.get().rbx & 0xffn).toBe(0x55n)
  })

  test('wait for their listener, who loses nothing, though the guest writes without end', async () => {
    const vcpu = realModeGuest(vm, 'xor %eax, %eax; 1: out %eax, $0x10; inc %eax; jmp 1b')
    let next = 0
    const running = vcpu.start(
      {
        'io-out': ({ data }) => {
          expect(new DataView(data.buffer, data.byteOffset).getUint32(0, true)).toBe(next++)
          if (next === (inLab ? 300 : 3000)) void vcpu.stop()
        }
      },
      { queued: [{ port: 0x10 }] }
    )
    expect(await running).toEqual({ reason: 'stopped' })
  })
})
