/** The second table, from HVA to HPA: /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst). */
import { closeSync, openSync, readSync } from 'node:fs'
import type { Hpa, Hva } from '../../abi/addresses.js'
import { checkAddress, checkInteger, pageSize } from '../../abi/arguments.js'
import { KvmError } from '../../abi/errors.js'
import { opening, zeroed } from '../../abi/exhausted.js'
import { folderOf, foreignProc } from './process-folder.js'

/** One page of host memory. */
export interface HostPage {
  hva: Hva
  present: boolean
  swapped: boolean
  /** Whether the page belongs to a file or to shared anonymous memory. */
  fileOrShared: boolean
  /** The physical address. It is absent without CAP_SYS_ADMIN, or if the page is not present. */
  hpa?: Hpa
}

const bit = { fileOrShared: 1n << 61n, swapped: 1n << 62n, present: 1n << 63n }
const frameMask = (1n << 55n) - 1n

/**
 * Reads which host pages are behind `pages` pages from `hva` on.
 * @param pid the process; the default is this one
 * @throws KvmError `argument` if there is no such process, `permission` if this process may not examine it, `limit` if it can open no file
 * @example
 * readPagemap(mapping.address)[0]?.hpa
 */
export function readPagemap(hva: Hva, pages = 1, pid: number | 'self' = 'self'): HostPage[] {
  checkAddress('hva', hva)
  checkInteger('pages', pages, 1, 2 ** 24)
  if (pid !== 'self') checkInteger('pid', pid, 1, 2 ** 31 - 1)
  const first = Math.floor(hva / pageSize)
  const entries = new BigUint64Array(zeroed(pages * 8).buffer)
  const folder = folderOf(pid)
  if (folder === null) throw new KvmError('unavailable', `reading the page map of process ${pid}: ${foreignProc}`, { pid })
  const path = `${folder}/pagemap`
  try {
    const file = opening(`opening ${path}`, () => openSync(path, 'r'))
    try {
      // The file ends at the end of the address space. Pages beyond it are absent.
      readSync(file, new Uint8Array(entries.buffer), 0, pages * 8, first * 8)
    } finally {
      closeSync(file)
    }
  } catch (error) {
    throw error instanceof KvmError ? error : refusal(path, (error as NodeJS.ErrnoException).code ?? 'EIO')
  }
  return Array.from(entries, (entry, index) => describe(entry, (first + index) * pageSize))
}

function refusal(path: string, errno: string): KvmError {
  const asked = `reading ${path}: ${errno}`
  if (errno === 'ENOENT' || errno === 'ESRCH') return new KvmError('argument', `${asked}; there is no such process here`, { argument: 'pid', errno })
  const advice = errno === 'EACCES' || errno === 'EPERM' ? '; only root, and users who may trace the process (CAP_SYS_PTRACE), may read it' : ''
  return new KvmError(advice ? 'permission' : 'unavailable', asked + advice, { errno })
}

function describe(entry: bigint, hva: Hva): HostPage {
  const present = (entry & bit.present) !== 0n
  const frame = Number(entry & frameMask)
  const page = { hva, present, swapped: (entry & bit.swapped) !== 0n, fileOrShared: (entry & bit.fileOrShared) !== 0n }
  return present && frame !== 0 ? { ...page, hpa: frame * pageSize } : page
}
