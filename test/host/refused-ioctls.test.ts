/** Every ioctl that the library sends, refused by the kernel: who it was sent to, which it was and what the kernel said are in the error. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { built } from '../support/built.js'
import { needsKvm } from '../support/needs.js'
import { skip } from '../support/skip.js'
import { vm } from '../support/vm.js'

const folder = mkdtempSync(join(tmpdir(), 'node-kvm-refused-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url))

/** Those that sources of the core import. */
function sentByLibrary(): Set<string> {
  const sent = new Set<string>()
  for (const name of readdirSync(path('../../lib'), { recursive: true }) as string[]) {
    if (!/^(kvm|memory)\/.*\.ts$/.test(name)) continue
    const imports = readFileSync(path(`../../lib/${name}`), 'utf8').match(/import \{[^}]*\} from '[^']*generated\/requests\.js'/g)
    for (const [ioctl] of (imports ?? []).join().matchAll(/KVM_\w+/g)) sent.add(ioctl)
  }
  return sent
}
/** What is asked only to find out why another was refused: nobody hears how it failed. */
const silent = ['KVM_GET_IRQCHIP']
/** Sent only where ordinary VMs have guest_memfds. */
const ofGuestMemfd = ['KVM_SET_USER_MEMORY_REGION2']

interface Refused {
  call: string
  nth: number
  isTyped: boolean
  code: string
  ioctl?: string
  errno?: string
  message: string
}

test('the error of each ioctl says which it was, what it was sent to, and what the kernel said', async (context) => {
  needsKvm(context)
  if (process.env['ASAN_OPTIONS']) skip(context, 'the shim and AddressSanitizer both take the place of the C library')
  const { buildShim } = await import(built('fuzz/shim.js'))
  const shim = buildShim(folder)
  if (!shim.LD_PRELOAD) skip(context, 'there is no C compiler')
  const { stdout, stderr, status, signal } = spawnSync(process.execPath, [path('../faults/refused-ioctls.mjs')], {
    encoding: 'utf8',
    env: { ...process.env, ...shim }
  })
  expect({ stderr, status, signal }).toEqual({ stderr: '', status: 0, signal: null })
  const errors: Refused[] = JSON.parse(stdout)
  const wrong = errors.filter(
    ({ isTyped, ioctl, errno, message }) =>
      !isTyped || errno !== 'EPROTO' || ioctl === undefined || !message.includes(ioctl) || !/^(this VM|this Kvm|vCPU \d|opening)/.test(message)
  )
  expect(wrong).toEqual([])
  const seen = new Set(errors.map(({ ioctl }) => ioctl))
  const unheard = [...silent, ...(vm.capabilities.check('GUEST_MEMFD') > 0 ? [] : ofGuestMemfd)]
  expect([...sentByLibrary()].filter((ioctl) => !seen.has(ioctl) && !unheard.includes(ioctl))).toEqual([])
})
