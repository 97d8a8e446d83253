/** Every failure of the library: a code to branch on, and a message that says what was asked, what the kernel said, what to do. */
import { constants } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import { visibleLines } from './text.js'

/** What kind of failure: for programs to branch on. */
export type KvmErrorCode =
  | 'argument' // a value of the wrong type, range or alignment; `argument` names it
  | 'closed' // the object was closed
  | 'in-use' // something still holds it
  | 'conflict' // another environment changed it meanwhile
  | 'overlap' // two memslots, or two coalesced ranges, would share guest addresses or ports
  | 'no-memslot' // no memslot there
  | 'limit' // more than the host has
  | 'unavailable' // the host or kernel lacks it
  | 'permission' // the process may not
  | 'memory' // host memory could not be mapped or reached
  | 'busy' // another thread is in the vCPU
  | 'state' // not in the state that it is in
  | 'not-present' // a page is not there yet, and cannot be waited for here
  | 'assembler' // GNU as refused the source
  | 'ioctl' // the kernel refused; errno says how

/** What an error carries beside its code and message. */
export interface KvmErrorDetails {
  /** The name of the argument that was wrong. */
  argument?: string
  /** `EEXIST`, `EINVAL`, ... */
  errno?: string
  /** The ioctl that failed: `KVM_SET_USER_MEMORY_REGION`. */
  ioctl?: string
  [context: string]: unknown
}

/**
 * @example
 * try { vm.memslots.create({ gpa: 1, mapping }) } catch (error) {
 *   if (error instanceof KvmError && error.code === 'argument') console.log(error.argument)   // 'gpa'
 * }
 */
export class KvmError extends Error {
  override readonly name = 'KvmError'
  readonly code: KvmErrorCode
  declare readonly argument?: string
  declare readonly errno?: string
  declare readonly ioctl?: string

  /** @internal */
  constructor(code: KvmErrorCode, message: string, details: KvmErrorDetails = {}) {
    // It may name a file or a process, and is printed.
    super(visibleLines(message))
    this.code = code
    Object.assign(this, details)
  }
}

const errnoNames = new Map([[133, 'EHWPOISON'], ...Object.entries(constants.errno).map(([name, number]) => [number, name] as const)])
errnoNames.set(constants.errno.EAGAIN, 'EAGAIN')
errnoNames.set(constants.errno.EOPNOTSUPP, 'EOPNOTSUPP')

/** `EINVAL` for -22. */
export function errnoName(negativeErrno: number): string {
  return errnoNames.get(-negativeErrno) ?? `errno ${-negativeErrno}`
}

/** What a process runs out of, by the errno that says so. EDQUOT stands for the add-on's own limit, below the kernel's. */
const exhausted: Record<string, { code: KvmErrorCode; errno: string; why: string }> = {
  EMFILE: { code: 'limit', errno: 'EMFILE', why: 'this process may open no more files; close some, or raise its limit (ulimit -n, RLIMIT_NOFILE)' },
  ENFILE: { code: 'limit', errno: 'ENFILE', why: 'the system has no more open files; raise /proc/sys/fs/file-max' },
  EDQUOT: {
    code: 'limit',
    errno: 'ENOMEM',
    why: 'this process has almost as many mappings as it may have, and needs the rest to live; unmap some, or raise the sysctl vm.max_map_count'
  },
  ENOMEM: {
    code: 'memory',
    errno: 'ENOMEM',
    why: "there is no more memory for this process; see its limit of address space (ulimit -v, RLIMIT_AS), its cgroup's memory.max, and vm.overcommit_memory"
  },
  threads: {
    code: 'limit',
    errno: 'EAGAIN',
    why: "no more threads can be made; see the limits ulimit -u (RLIMIT_NPROC), pids.max of the process's cgroup, and ulimit -v (RLIMIT_AS)"
  }
}

/** The error for an errno (by its name, or negative) that says that the process, or the system, has no more of something; undefined for others. */
export function exhaustion(asked: string, errno: string | number, details: KvmErrorDetails = {}): KvmError | undefined {
  const found = exhausted[typeof errno === 'string' ? errno : errnoName(errno)]
  return found && new KvmError(found.code, `${asked}: ${found.errno}; ${found.why}`, { ...details, errno: found.errno })
}

/** What an errno means where nobody knows its cause: `EINVAL (invalid argument)`. */
export function errnoText(negativeErrno: number): string {
  const meaning = getSystemErrorMap().get(negativeErrno)?.[1]
  return `${errnoName(negativeErrno)}${meaning ? ` (${meaning})` : ''}`
}

/**
 * Turns the negative errno of an ioctl into an error.
 * @param cause what it was refused for, if that is known
 */
export function ioctlError(ioctl: string, negativeErrno: number, asked: string, cause = '', details: KvmErrorDetails = {}): KvmError {
  const errno = errnoName(negativeErrno)
  const exhausted = errno === 'ENOMEM' ? undefined : exhaustion(`${asked}: ${ioctl} failed`, negativeErrno, { ioctl, ...details })
  if (exhausted) return exhausted
  // An object of KVM's says so of a request that it does not know.
  const lacking = errno === 'ENOTTY'
  const why = cause ? `${errno}; ${cause}` : lacking ? `${errno}; this host's KVM lacks it` : errnoText(negativeErrno)
  return new KvmError(lacking ? 'unavailable' : 'ioctl', `${asked}: ${ioctl} failed with ${why}`, { ioctl, errno, ...details })
}

/** Throws if the call failed, else hands its result on. */
export function checked(result: number, ioctl: string, asked: string, advice?: string): number {
  if (result < 0) throw ioctlError(ioctl, result, asked, advice)
  return result
}

/** Turns the negative errno of what takes a descriptor or a thread into an error that names the limit. */
export function limitError(asked: string, negativeErrno: number): KvmError {
  const errno = errnoName(negativeErrno)
  const advice = errno === 'ENOSPC' ? '; this user may watch no more files: raise fs.epoll.max_user_watches (sysctl)' : ''
  return exhaustion(asked, errno === 'EAGAIN' ? 'threads' : errno) ?? new KvmError('limit', `${asked}: ${errno}${advice}`, { errno })
}
/** Takes each step, also those after one that throws; what was thrown is thrown after the last: the error, or an AggregateError of several. */
export function takeEach(steps: Iterable<() => void>): void {
  const errors: unknown[] = []
  for (const step of steps)
    try {
      step()
    } catch (error) {
      errors.push(error)
    }
  if (errors.length > 1) throw new AggregateError(errors, `${errors.length} steps failed; see errors`)
  if (errors.length === 1) throw errors[0]
}

/** Throws in a turn of its own, where an error that a listener throws would arrive: for callers that have something else to hand on. */
export function throwLater(error: unknown): void {
  queueMicrotask(() => {
    throw error
  })
}
