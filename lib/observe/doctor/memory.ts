/** Checks guest memory: pages on demand, and huge pages. */
import { closeSync, openSync } from 'node:fs'
import { KiB, MiB } from '../../abi/arguments.js'
import { isFiltered, readOptional } from '../../abi/procfs.js'
import { hasCapability } from '../privileges.js'
import { namesIn } from './files.js'
import { byRoot, type Finding, found, lacking, type Situation, whatHappened } from './finding.js'
import { gaining } from './observing.js'

const pagingDevice = '/dev/userfaultfd'

function openError(path: string): string | null {
  try {
    closeSync(openSync(path, 'r+'))
    return null
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'EIO'
  }
}

/** Checks the three ways to a userfaultfd that serves faults in the kernel (admin-guide/mm/userfaultfd.rst). */
export async function checkUserfaultfd({ probes }: Situation): Promise<Finding | null> {
  const name = 'userfaultfd'
  const refusal = await probes?.servePageFaults()
  if (refusal === undefined) return null
  const device = openError(pagingDevice)
  const ways = [
    `CAP_SYS_PTRACE is ${hasCapability('sys_ptrace') ? '' : 'not '}held`,
    `vm.unprivileged_userfaultfd is ${readOptional('/proc/sys/vm/unprivileged_userfaultfd') ?? 'unknown'}`,
    `${pagingDevice} ${device === null ? 'opens' : `gives ${device}`}`
  ].join(', ')
  if (refusal === null) return found(name, `page faults can be served: ${ways}`)
  const detail = `${whatHappened(refusal)}: ${ways}`
  const passOn = `docker run --device ${pagingDevice} ..., with the device readable and writable for its user`
  if (hasCapability('sys_ptrace') && isFiltered())
    return lacking(name, `${detail}; a seccomp filter refuses the system call`, {
      advice: `${passOn}; or --security-opt seccomp=FILE, with a FILE that allows userfaultfd`
    })
  if (device === 'EACCES') return lacking(name, detail, byRoot(`chown ${process.geteuid?.() ?? 0} ${pagingDevice}`, pagingPrice))
  return lacking(name, detail, gaining('sys_ptrace'))
}
const pagingPrice =
  'this user can then stop the kernel in the middle of an access to user memory, which helps to exploit race conditions; until the next boot'

const pools = '/sys/kernel/mm/hugepages'

interface Pool {
  bytes: number
  pages: number
  free: number
  file: string
}

/** Returns the pools of huge pages (admin-guide/mm/hugetlbpage.rst), those of the smallest pages first. */
const poolsOf = (): Pool[] =>
  namesIn(pools)
    .map((folder) => {
      const read = (file: string) => Number(readOptional(`${pools}/${folder}/${file}`) ?? 0)
      const bytes = Number(/\d+/.exec(folder)) * KiB
      return { bytes, pages: read('nr_hugepages'), free: read('free_hugepages'), file: `${pools}/${folder}/nr_hugepages` }
    })
    .sort((a, b) => a.bytes - b.bytes)

/** Checks whether this process can get a huge page, not only whether one is free: a cgroup may refuse it. */
export async function checkHugetlb({ probes }: Situation): Promise<Finding | null> {
  const name = 'hugetlb'
  const all = poolsOf()
  const [smallest] = all
  if (!smallest) return lacking(name, 'the kernel shows no pool of huge pages', { advice: 'a kernel with CONFIG_HUGETLBFS, and /sys mounted' })
  const text = all.map(({ bytes, pages, free }) => `${free} of ${pages} pages of ${bytes / MiB} MiB are free`).join(', ')
  const usable = all.find(({ free }) => free > 0)
  if (!usable) {
    const more = Math.max(1, Math.ceil((128 * MiB) / smallest.bytes))
    const price = `${(more * smallest.bytes) / MiB} MiB are taken from ordinary memory until the pool is set back to ${smallest.pages} pages, or until the next boot`
    return lacking(name, text, byRoot(`echo ${smallest.pages + more} > ${smallest.file}`, price))
  }
  const refusal = (await probes?.mapHugePage(usable.bytes)) ?? null
  if (refusal === null) return found(name, text)
  return lacking(name, `${text}; but ${whatHappened(refusal)}`, {
    advice: "the hugetlb limit of this process's cgroup, or another limit of its memory, refuses it"
  })
}
