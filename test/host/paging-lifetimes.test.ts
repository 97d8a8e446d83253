import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { Mapping } from 'node-kvm'
import { Guest } from 'node-kvm/testing'
import { describe, expect, test } from 'vitest'
import { library, testing } from '../support/built.js'
import { withDescriptors } from '../support/descriptors.js'
import { checkedError } from '../support/errors.js'
import { needsPaging } from '../support/needs.js'
import { gpa, pageSize, pattern, wordOf } from '../support/paging.js'
import { patience } from '../support/patience.js'
import { threads } from '../support/process.js'
import { vm } from '../support/vm.js'

describe('lifetimes', () => {
  test('what is missing is ordinary memory after close(); the mapping ends its service, and a slot keeps it', (context) => {
    needsPaging(context)
    const ram = Mapping.anonymous(4 * pageSize)
    const paging = ram.onMissing(pattern)
    expect(checkedError(() => ram.onMissing(pattern), 'in-use').errno).toBe('EEXIST')
    expect(ram.read(0, 1)[0]).toBe(1)
    paging.close()
    paging.close()
    expect(ram.read(pageSize, 1)[0]).toBe(0)
    const again = ram.onMissing(pattern)
    vm.memslots.create({ gpa, mapping: ram })
    ram[Symbol.dispose]()
    expect(again.closed).toBe(false)
    expect(Guest.create(vm).read(gpa + 2 * pageSize)).toEqual({ reason: 'done', value: wordOf(2) })
    vm.close()
    expect(again.closed).toBe(true)
  })

  test('a handler that holds its own mapping holds it no longer than until close()', async (context) => {
    needsPaging(context)
    // After this function returns, nothing but the handler is left.
    const lost = (() => {
      const ram = Mapping.anonymous(pageSize)
      ram.onMissing(() => (ram.address === 0 ? null : undefined)).close()
      return new WeakRef(ram)
    })()
    const isLost = () => {
      globalThis.gc?.()
      return lost.deref() === undefined
    }
    await expect.poll(isLost, { timeout: 20_000 }).toBe(true)
  })

  test('a live buffer and a service exclude each other', (context) => {
    needsPaging(context)
    using ram = Mapping.anonymous(pageSize)
    using _paging = ram.onMissing(pattern)
    checkedError(() => ram.buffer, 'unavailable')
    const other = Mapping.anonymous(pageSize)
    const view = new Uint8Array(other.buffer)
    expect(checkedError(() => other.onMissing(pattern), 'in-use').errno).toBe('EBUSY')
    expect(view[0]).toBe(0)
  })

  test('a Worker, or a process, that ends in the middle of a fault ends', async (context) => {
    needsPaging(context)
    const source = (then: string) => `
      const { parentPort } = require('node:worker_threads')
      Promise.all([import(${library}), import(${testing})]).then(([{ Kvm, Mapping }, { Guest }]) => {
        const vm = Kvm.open().createVm()
        const ram = Mapping.anonymous(65536)
        const paging = ram.onMissing(() => new Promise(() => {}))
        vm.memslots.create({ gpa: 0x200000, mapping: ram })
        try { Guest.create(vm).read(0x200000) } catch (error) { ${then} }
      })`
    for (let round = 0; round < 3; round++) {
      const worker = new Worker(source('parentPort.postMessage(error.code)'), { eval: true })
      expect(await once(worker, 'message')).toEqual(['not-present'])
      await worker.terminate()
    }
    // Objects that earlier tests left to the collector go, too.
    const left = () => {
      globalThis.gc?.()
      return threads().filter((name) => name === 'kvm-userfaults')
    }
    await expect.poll(left).toEqual([])
    const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', source('console.log(error.code); process.exit(4)')], {
      encoding: 'utf8',
      timeout: patience
    })
    expect({ stdout, stderr, status }).toEqual({ stdout: 'not-present\n', stderr: '', status: 4 })
  })

  test('a native source outlives the handle of its mapping and holds no process open', (context) => {
    needsPaging(context)
    const program = `import { Mapping } from ${library}; const ram = Mapping.anonymous(65536)
      ram.onMissing({ content: new Uint8Array(4096).fill(7) }); console.log(ram.read(0, 1)[0])`
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8', timeout: patience })
    expect({ stdout, stderr, status }).toEqual({ stdout: '7\n', stderr: '', status: 0 })
  })
})

test('a service that cannot be had for want of descriptors leaves the mapping as it was', (context) => {
  needsPaging(context)
  const ram = Mapping.anonymous(4 * pageSize)
  vm.memslots.create({ gpa, mapping: ram })
  const guest = Guest.create(vm)
  for (let free = 0; free < 8; free++) {
    const paging = withDescriptors(free, () => {
      try {
        return ram.onMissing(pattern)
      } catch (error) {
        expect(error).toMatchObject({ name: 'KvmError', code: 'limit', errno: 'EMFILE' })
        return undefined
      }
    })
    const last = paging !== undefined
    paging?.close()
    // By now this is ordinary memory, and can be served.
    expect(guest.read(gpa)).toEqual({ reason: 'done', value: 0n })
    ram.advise('dontneed')
    using again = ram.onMissing(pattern)
    expect(guest.read(gpa)).toEqual({ reason: 'done', value: wordOf(0) })
    expect(again.served).toBe(1)
    again.close()
    ram.advise('dontneed')
    if (last) return expect(free).toBeGreaterThan(0)
  }
  throw new Error('eight descriptors were not enough')
})
