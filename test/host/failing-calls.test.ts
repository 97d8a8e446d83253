/**
 * A C function that the add-on calls fails at its n-th call: the library reports the error, nothing is left of what was begun, and the process lives.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { built, importable, library, observe } from '../support/built.js'
import { needsKvm } from '../support/needs.js'
import { skip } from '../support/skip.js'

const limits = importable('fuzz/program/limits.js')
/** Whatever a call makes is closed afterwards, when no function fails. */
const calls: Record<string, string> = {
  'kvm.createVm()': 'kvm.createVm()',
  'vm.createVcpu()': 'vm.createVcpu()',
  'vm.ioeventfd()': 'vm.ioeventfd({ port: 1, size: 1 })',
  'trace(vm)': 'trace(vm, { ringSize: 4096 })',
  'onMissing(handler)': 'mapping.onMissing(() => null)',
  'onMissing(content)': 'mapping.onMissing({ content: new Uint8Array(4096) })',
  'vm.dirtyLog()': 'vm.dirtyLog()',
  'tables(vm)': '(tables(vm), undefined)',
  'memslots.transaction()': 'vm.memslots.transaction((tx) => void tx.create({ gpa: 0x10_0000, mapping }))',
  'mapping.remap()': 'mapping.remap(0, 4096)'
}

let folder: string
let shim: Record<string, string>
beforeAll(async () => {
  const { buildShim } = await import(built('fuzz/shim.js'))
  folder = mkdtempSync(join(tmpdir(), 'node-kvm-failing-'))
  shim = buildShim(folder)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

test.for(Object.entries(calls))('%s fails whole, at whichever call of the system', ([name, call], context) => {
  needsKvm(context)
  if (process.env['ASAN_OPTIONS']) skip(context, 'AddressSanitizer ends a process that has no memory')
  if (!shim['LD_PRELOAD']) skip(context, 'there is no C compiler')
  const program = `
    import { readdirSync } from 'node:fs'
    import { Kvm, KvmError, Mapping } from ${library}
    import { tables, trace } from ${observe}
    import { withFailing } from ${limits}
    const kvm = Kvm.open(), vm = kvm.createVm(), mapping = Mapping.anonymous(65536)
    vm.memslots.create({ gpa: 0, mapping })
    const call = () => ${call}
    const undo = (made) => {
      made?.close()
      for (const slot of [...vm.memslots].slice(1)) slot.delete()
    }
    let refused
    try { undo(call()) } catch (error) { refused = error }
    let failed = 0
    const descriptors = () => readdirSync('/proc/self/fd').length
    const before = descriptors()
    const isTyped = (error) => error instanceof KvmError || (error instanceof AggregateError && error.errors.every(isTyped))
    const errnos = { malloc: 'ENOMEM', mmap: 'ENOMEM', ioctl: 'EINVAL', eventfd: 'EMFILE', socketpair: 'EMFILE', epoll_create1: 'EMFILE',
      epoll_ctl: 'ENOSPC', pthread_create: 'EAGAIN', memfd_create: 'EMFILE', madvise: 'ENOMEM', mincore: 'EAGAIN', syscall: 'EMFILE' }
    for (const [name, errno] of Object.entries(errnos))
      for (let nth = 1; nth <= 8; nth++) {
        let made
        try { made = withFailing(name, nth, errno, call) }
        catch (error) { failed++; if (!isTyped(error)) console.log(name, nth, String(error)) }
        undo(made)
        try { if (!refused) undo(call()) } catch (error) { console.log('after', name, nth, String(error)) }
        await new Promise((resolve) => setImmediate(resolve))
      }
    for (let rounds = 0; rounds < 100 && descriptors() > before; rounds++) {
      gc()
      await new Promise((resolve) => setImmediate(resolve))
    }
    if (descriptors() > before) console.log(descriptors() - before, 'descriptors left')
    console.log(failed > 0, refused?.code)
    process.exit(0)`
  const { stdout, stderr, status, signal } = spawnSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', program], {
    encoding: 'utf8',
    env: { ...process.env, ...shim }
  })
  const refusal = /^true (permission|unavailable)\n$/.exec(stdout)
  if (refusal) skip(context, `${name} needs a permission that this process lacks, or another kernel`)
  expect({ stdout, stderr, status, signal }).toEqual({ stdout: 'true undefined\n', stderr: '', status: 0, signal: null })
})
