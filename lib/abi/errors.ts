/** Every failure of the library has a code to branch on, and a message: what was asked, what the kernel said, what to do. */
import { constants } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import { visibleLines } from './text.js'

/** The kind of a failure, for programs to branch on. */
export type KvmErrorCode =
  | 'argument' // a value of the wrong type, range or alignment; `argument` names it
  | 'closed' // the object was closed
  | 'in-use' // something still uses the object
  | 'conflict' // another environment changed the same object meanwhile
  | 'overlap' // two memslots, or two coalesced ranges, would share guest addresses or ports
  | 'no-memslot' // no memslot is at that address
  | 'limit' // the host has no more of it
  | 'unavailable' // the host or the kernel lacks the feature
  | 'permission' // the process lacks a permission
  | 'memory' // host memory could not be mapped or reached
  | 'busy' // another thread runs the vCPU
  | 'state' // the object's present state does not allow it
  | 'not-present' // a page is not there yet, and this thread cannot wait for it
  | 'assembler' // GNU as refused the source
  | 'ioctl' // the kernel refused; `errno` says why

/** What an error carries beside its code and message. */
export interface KvmErrorDetails {
  /** The name of the argument that was wrong. */
  argument?: string
  /** The name of the errno: `EEXIST`, `EINVAL`, ... */
  errno?: string
  /** The ioctl that failed: `KVM_SET_USER_MEMORY_REGION`. */
  ioctl?: string
  [context: string]: unknown
}

/**
 * The error that the library throws.
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
    // The message may name a file or a process, and is printed.
    super(visibleLines(message))
    this.code = code
    Object.assign(this, details)
  }
}

const errnoNames = new Map([[133, 'EHWPOISON'], ...Object.entries(constants.errno).map(([name, number]) => [number, name] as const)])
errnoNames.set(constants.errno.EAGAIN, 'EAGAIN')
errnoNames.set(constants.errno.EOPNOTSUPP, 'EOPNOTSUPP')

/** Returns the name of an errno: `EINVAL` for -22. */
export function errnoName(negativeErrno: number): string {
  return errnoNames.get(-negativeErrno) ?? `errno ${-negativeErrno}`
}

/** Resources that a process can run out of, by the errno that reports it. EDQUOT stands for the add-on's own limit, below the kernel's. */
const exhausted: Record<string, { code: KvmErrorCode; errno: string; why: string }> = {
  EMFILE: { code: 'limit', errno: 'EMFILE', why: 'this process may open no more files; close some, or raise its limit (ulimit -n, RLIMIT_NOFILE)' },
  ENFILE: { code: 'limit', errno: 'ENFILE', why: 'the system has no more open files; raise /proc/sys/fs/file-max' },
  EDQUOT: {
    code: 'limit',
    errno: 'ENOMEM',
    why: 'this process is close to its limit of mappings and needs the rest to live; unmap some, or raise the sysctl vm.max_map_count'
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

/** Makes the error for an errno (its name or its negative number) that reports an exhausted resource. Other errnos give undefined. */
export function exhaustion(asked: string, errno: string | number, details: KvmErrorDetails = {}): KvmError | undefined {
  const found = exhausted[typeof errno === 'string' ? errno : errnoName(errno)]
  return found && new KvmError(found.code, `${asked}: ${found.errno}; ${found.why}`, { ...details, errno: found.errno })
}

/** Describes an errno whose cause nobody knows: `EINVAL (invalid argument)`. */
export function errnoText(negativeErrno: number): string {
  const meaning = getSystemErrorMap().get(negativeErrno)?.[1]
  return `${errnoName(negativeErrno)}${meaning ? ` (${meaning})` : ''}`
}

/**
 * Turns the negative errno of an ioctl into an error.
 * @param cause why the kernel refused, if that is known
 */
export function ioctlError(ioctl: string, negativeErrno: number, asked: string, cause = '', details: KvmErrorDetails = {}): KvmError {
  const errno = errnoName(negativeErrno)
  const exhausted = errno === 'ENOMEM' ? undefined : exhaustion(`${asked}: ${ioctl} failed`, negativeErrno, { ioctl, ...details })
  if (exhausted) return exhausted
  // KVM's descriptors give ENOTTY for a request that they do not know.
  const lacking = errno === 'ENOTTY'
  const why = cause ? `${errno}; ${cause}` : lacking ? `${errno}; this host's KVM lacks it` : errnoText(negativeErrno)
  return new KvmError(lacking ? 'unavailable' : 'ioctl', `${asked}: ${ioctl} failed with ${why}`, { ioctl, errno, ...details })
}

/** Returns the result of a call, or throws if the call failed. */
export function checked(result: number, ioctl: string, asked: string, advice?: string): number {
  if (result < 0) throw ioctlError(ioctl, result, asked, advice)
  return result
}

/** Makes the error for a negative errno of a call that takes a descriptor or a thread. The error names the limit. */
export function limitError(asked: string, negativeErrno: number): KvmError {
  const errno = errnoName(negativeErrno)
  const advice = errno === 'ENOSPC' ? '; this user may watch no more files: raise fs.epoll.max_user_watches (sysctl)' : ''
  return exhaustion(asked, errno === 'EAGAIN' ? 'threads' : errno) ?? new KvmError('limit', `${asked}: ${errno}${advice}`, { errno })
}
/** Takes all steps, even if one throws. Afterwards it throws what the step threw, or an AggregateError if several threw. */
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

/** Throws in a later microtask, as an error of a listener would be thrown. It is for callers that still have a result to return. */
export function throwLater(error: unknown): void {
  queueMicrotask(() => {
    throw error
  })
}
