import { spawnSync } from 'node:child_process'
import { expect } from 'vitest'
import { library, observe, testing } from './built.js'
import { patience } from './patience.js'

/** The output lines of a program. It runs after `shell` did something to its process, or `shell` itself starts it as `"$0" "$@"`. */
export function outputOf(program: string, { shell = ':', flags = [] as string[] } = {}): string[] {
  const whole = `
    import { execFileSync } from 'node:child_process'
    import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
    import { capabilities, GiB, KiB, Kvm, KvmError, Mapping, MiB } from ${library}
    import { diagnose, hostVms, readPagemap, tables, trace, translate } from ${observe}
    import { assemble, Guest } from ${testing}
    const resultOf = (call, told = '') => {
      try { call(); return 'worked' }
      catch (error) { return error instanceof KvmError ? [error.code, error.errno, error.message.includes(told)].join() : String(error) }
    }
    const errorOf = (call) => {
      try { call(); return 'worked' }
      catch (error) { return error instanceof KvmError ? [error.code, error.errno, error.message].join(' | ') : String(error) }
    }
    const descriptors = () => readdirSync('/proc/self/fd').length
    ${program}`
  const { stdout, stderr, status, signal } = spawnSync(
    '/bin/sh',
    ['-c', `${shell}; exec "$0" "$@"`, process.execPath, ...flags, '--input-type=module', '-e', whole],
    {
      encoding: 'utf8',
      timeout: patience
    }
  )
  expect({ stderr, status, signal }).toEqual({ stderr: '', status: 0, signal: null })
  return stdout.trim().split('\n')
}
