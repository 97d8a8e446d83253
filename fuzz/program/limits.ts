/** Makes calls of the library with too little of some resource. Each limit is in force for the call alone. */
import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, rmdirSync, writeFileSync, writeSync } from 'node:fs'
import { constants } from 'node:os'
import { report } from './attempt.js'

/** Makes a call with so many descriptors free, and no more. */
export function withDescriptors<T>(free: number, call: () => T): T {
  const filler: number[] = []
  try {
    for (;;) filler.push(openSync('/dev/null', 'r'))
  } catch {
    // The process may open no more.
  }
  try {
    for (const fd of filler.splice(0, free)) closeSync(fd)
    return call()
  } finally {
    for (const fd of filler) closeSync(fd)
  }
}

/**
 * Makes a call under a limit that is removed after it. The parent is told, for two reasons: a Worker may be ended in between; and if the limit could
 * not be removed, the process goes on with too little, and runs no other program.
 */
export function within<T>(limit: string, set: () => void, unset: () => void, call: () => T): T {
  report('lacking', limit)
  try {
    set()
  } catch {
    report('enough', limit)
    return call()
  }
  try {
    return call()
  } finally {
    try {
      unset()
      report('enough', limit)
    } catch {
      // The parent has been told already what is lacking.
    }
  }
}

/** Makes a call that can start no thread, if this process may make a cgroup with the pids controller; otherwise an ordinary call. */
export function withoutThreads<T>(call: () => T): T {
  const cgroups = '/sys/fs/cgroup/pids'
  const group = `${cgroups}/node-kvm-fuzz-${process.pid}`
  const set = () => {
    mkdirSync(group)
    writeFileSync(`${group}/cgroup.procs`, String(process.pid))
    writeFileSync(`${group}/pids.max`, readFileSync(`${group}/pids.current`, 'utf8'))
  }
  const unset = () => {
    writeFileSync(`${cgroups}/cgroup.procs`, String(process.pid))
    rmdirSync(group)
  }
  return within('threads', set, unset, call)
}

/**
 * Makes a call under a soft limit, which prlimit(1) sets and removes. Where it cannot, for example under another limit, the call is made without it.
 */
export function withLimit<T>(option: string, value: () => number, call: () => T): T {
  const set = (to: number | string) => void execFileSync('prlimit', ['--pid', String(process.pid), `--${option}=${to}:`])
  return within(
    option,
    () => set(value()),
    () => set('unlimited'),
    call
  )
}

/** Makes a call with room for so many more bytes of address space. V8 itself needs some, and ends the process if it gets none. */
export function withAddressSpace<T>(bytes: number, call: () => T): T {
  return withLimit('as', () => Number(/VmSize:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024 + bytes, call)
}

export function withFileSize<T>(bytes: number, call: () => T): T {
  return withLimit('fsize', () => bytes, call)
}

/** Makes a call during which the add-on's n-th call of a C function fails (shim.c). Without the shim it is an ordinary call. */
export function withFailing<T>(name: string, nth: number, errno: string, call: () => T): T {
  const path = process.env['NODE_KVM_FUZZ_SHIM']
  if (!path) return call()
  let fd: number
  try {
    fd = openSync(path, 'r+')
  } catch {
    // The process may open no more.
    return call()
  }
  const arm = (text: string, words: number[]) => {
    const record = Buffer.alloc(32)
    record.writeInt32LE(words[0] as number, 0)
    record.writeInt32LE(words[1] as number, 4)
    record.write(text, 8, 'latin1')
    // The countdown is written last, because the shim looks at it.
    writeSync(fd, record, 4, 28, 4)
    writeSync(fd, record, 0, 4, 0)
  }
  arm(name, [nth, (constants.errno as Record<string, number>)[errno] ?? 12])
  try {
    return call()
  } finally {
    arm('', [0, 0])
    closeSync(fd)
  }
}
