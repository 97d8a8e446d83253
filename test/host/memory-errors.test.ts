/** Why host memory cannot be had: the library looks for the cause, and says only what it found out. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { GiB, KiB, Mapping, MiB } from 'node-kvm'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { unmappedError, whyNoMemory } from '../../lib/memory/mapping-refusal.js'
import { compile } from '../support/compile.js'
import { checkedError } from '../support/errors.js'
import { needsPaging } from '../support/needs.js'
import { outputOf } from '../support/program.js'
import { needsRestricting, systemCalls } from '../support/restricted.js'
import { skip } from '../support/skip.js'

const folder = mkdtempSync(join(tmpdir(), 'node-kvm-memory-errors-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** The /proc of a host with 8 GiB, of which half may be committed. */
function host(overcommit: number, limits = ''): (path: string) => string {
  const files: Record<string, string> = {
    '/proc/meminfo': 'MemTotal: 8388608 kB\nSwapTotal: 0 kB\nCommitLimit: 4194304 kB\nCommitted_AS: 3145728 kB\n',
    '/proc/sys/vm/overcommit_memory': `${overcommit}\n`,
    '/proc/self/status': 'VmSize: 1048576 kB\nVmData: 524288 kB\n',
    '/proc/self/limits': limits
  }
  return (path) => files[path] ?? ''
}

describe('no memory for a mapping', () => {
  const anonymous = (size: number, noReserve = false) => ({ kind: 'anonymous' as const, size, noReserve })

  test('on a host that overcommits by heuristics leads to mapping without reserve what is larger than all memory', () => {
    expect(whyNoMemory(anonymous(9 * GiB), host(0))).toMatch(/overcommit_memory is 0, .* 8\.0 GiB: map it with \{ noReserve: true \}/)
    expect(whyNoMemory(anonymous(2 * GiB), host(0))).toBe('the kernel has no memory for it')
    expect(whyNoMemory(anonymous(9 * GiB, true), host(0))).toBe('the kernel has no memory for it')
  })
  test('on a host that never overcommits is told with the commit limit, and not with noReserve, which it ignores', () => {
    const why = whyNoMemory(anonymous(2 * GiB), host(2))
    expect(why).toMatch(/overcommit_memory is 2, and 3\.0 GiB of the commit limit, 4\.0 GiB, are taken/)
    expect(why).not.toContain('noReserve')
    expect(whyNoMemory(anonymous(GiB / 2), host(2))).toBe('the kernel has no memory for it')
  })
  test('in a process with a limit is told with the limit before all else', () => {
    const space = 'Max address space         2147483648           unlimited            bytes\n'
    const data = 'Max data size             1073741824           unlimited            bytes\n'
    expect(whyNoMemory(anonymous(9 * GiB), host(0, space))).toContain('RLIMIT_AS')
    expect(whyNoMemory({ kind: 'memfd', size: 9 * GiB }, host(0, space))).toContain('RLIMIT_AS')
    expect(whyNoMemory(anonymous(GiB), host(1, data))).toContain('RLIMIT_DATA')
    expect(whyNoMemory({ kind: 'memfd', size: GiB }, host(1, data))).toBe('the kernel has no memory for it')
  })
  test('nothing is said of huge pages for other memory', () => {
    for (const mode of [0, 1, 2]) expect(whyNoMemory(anonymous(9 * GiB), host(mode))).not.toMatch(/hugepages|hugetlb/)
  })
})

test('mmap_min_addr is told to whom it is the reason for the lowest addresses', () => {
  const on = (capabilities: string) => (path: string) =>
    ({ '/proc/sys/vm/mmap_min_addr': '65536\n', '/proc/self/status': `CapEff:\t${capabilities}\n` })[path] ?? ''
  const at = (address: number, capabilities: string) =>
    unmappedError({ kind: 'anonymous', size: 4096, address, fixed: true }, -constants.errno.EPERM, on(capabilities)).message
  expect(at(0x1000, '0000000000000000')).toContain('EPERM; the address lies below 0x10000 (/proc/sys/vm/mmap_min_addr)')
  expect(at(0x10000, '0000000000000000')).not.toContain('mmap_min_addr')
  expect(at(0x1000, '0000000000020000')).not.toContain('mmap_min_addr')
})

test('a mapping of more than all memory and swap is refused by the heuristics with the way out, and is mapped without reserve', (context) => {
  if (readFileSync('/proc/sys/vm/overcommit_memory', 'utf8').trim() !== '0') skip(context, 'vm.overcommit_memory is not 0 here')
  const size = 2 ** 45
  expect(checkedError(() => Mapping.anonymous(size), 'memory').message).toContain('map it with { noReserve: true }')
  using mapping = Mapping.anonymous(size, { noReserve: true })
  mapping.write(size - 1, new Uint8Array([7]))
  mapping.remap(size - 4 * KiB, 4 * KiB)
  expect([...mapping.read(size - 1, 1)]).toEqual([0])
})

test('a lack of huge pages is told with how many are needed, how many are free, and where to have more', (context) => {
  const pool = '/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages'
  if (!existsSync(pool)) skip(context, 'this kernel has no pool of huge pages of 2 MiB')
  const free = Number(readFileSync(pool, 'utf8'))
  const error = checkedError(() => Mapping.hugetlb((free + 1) * 2 * MiB), 'memory')
  expect(error.message).toMatch(/ENOMEM; \d+ huge pages of 2\.0 MiB are needed, and \d+ are free: raise .*hugepages-2048kB\/nr_hugepages$/)
  expect(checkedError(() => Mapping.hugetlb(8 * MiB, { hugePageSize: 8 * MiB }), 'memory').message).toContain(
    'this kernel has no huge pages of 8.0 MiB'
  )
})

test('a busy mapping says whether a live buffer or a service of its faults is in the way', (context) => {
  const buffered = Mapping.anonymous(64 * KiB)
  const { buffer } = buffered
  expect(checkedError(() => buffered.protect('none'), 'memory').message).toContain('a live buffer of the mapping exists')
  expect(buffer.byteLength).toBe(64 * KiB)
  needsPaging(context)
  using served = Mapping.anonymous(64 * KiB)
  using _paging = served.onMissing({ content: new Uint8Array(1) })
  expect(checkedError(() => served.remap(), 'memory').message).toContain('close its DemandPaging first')
})

describe('in a process from which something was taken', () => {
  beforeEach(needsRestricting)
  const as = (...words: string[]) => `exec ${words.join(' ')} "$0" "$@"`

  test('a seccomp filter is named, and mmap_min_addr is not', (context) => {
    const refuse = compile(context, 'refuse', folder)
    const [line] = outputOf('console.log(errorOf(() => Mapping.memfd(4096)))', { shell: as(refuse, String(systemCalls.memfd_create), '--') })
    expect(line).toMatch(/^memory \| EPERM \| .*this process is under a seccomp filter/)
    expect(line).not.toContain('mmap_min_addr')
  })

  test('a seccomp filter that refuses userfaultfd is named, and no capability that is held', (context) => {
    needsPaging(context)
    const refuse = compile(context, 'refuse', folder)
    const over = join(folder, 'over')
    mkdirSync(over)
    // The device, if there is one, is put on a file system whose devices cannot be opened.
    const device = `mount -t tmpfs -o nodev tmpfs ${over} && cp -a /dev/userfaultfd ${over} && mount --bind ${over}/userfaultfd /dev/userfaultfd`
    const inside = `test ! -e /dev/userfaultfd || { ${device}; }; exec ${refuse} ${systemCalls.userfaultfd} -- "$0" "$@"`
    const [line] = outputOf('console.log(errorOf(() => Mapping.anonymous(4096).onMissing({ content: new Uint8Array(1) })))', {
      shell: `exec unshare -m sh -c '${inside}' "$0" "$@"`
    })
    expect(line).toMatch(/^permission \| EPERM \| .*under a seccomp filter/)
  })

  test('a limit of address space, of data and of file size is named', () => {
    const map = (kind: string) => `console.log(errorOf(() => Mapping.${kind}(64 * GiB)))`
    expect(outputOf(map('anonymous'), { shell: `ulimit -v 20000000; ${as()}` })).toEqual([expect.stringContaining('RLIMIT_AS')])
    expect(outputOf(map('anonymous'), { shell: `ulimit -d 20000000; ${as()}` })).toEqual([expect.stringContaining('RLIMIT_DATA')])
    expect(outputOf(map('memfd'), { shell: `ulimit -f 1024; ${as()}` })).toEqual([
      expect.stringMatching(/EFBIG; files of this process may have .* [KM]iB, and a memfd counts as one/)
    ])
  })
})
