import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, expect, test } from 'vitest'
import { acquire, tryAcquire } from '../../lab/lock.js'
import { importable } from '../support/built.js'
import { skip } from '../support/skip.js'

const folder = mkdtempSync(join(tmpdir(), 'node-kvm-lock-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const lock = importable('lab/lock.js')

// This process records when it gets the lock and when it releases it. A process that stays is killed with the lock.
const program = `
  const { appendFileSync } = await import('node:fs')
  const { acquire } = await import(${lock})
  const [, path, log, rounds] = process.argv
  for (let round = 0; round < Number(rounds || Infinity); round++) {
    const release = await acquire(path)
    appendFileSync(log, process.pid + ' has it\\n')
    if (!rounds) { console.log('held'); await new Promise((resolve) => setInterval(() => {}, 1000)) }
    await new Promise(setImmediate)
    appendFileSync(log, process.pid + ' lets go\\n')
    release()
  }`
const taker = (...args: string[]): ChildProcess =>
  spawn(process.execPath, ['--input-type=module', '-e', program, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })

test('owners come one after the other, whoever dies with the lock', async () => {
  const [path, log] = [join(folder, 'many.lock'), join(folder, 'log')]
  // This is the file of an owner of the lock's first version; waiters of that version took it away from each other.
  writeFileSync(path, '999999999 1')
  const workers = Array.from({ length: 3 }, () => taker(path, log, '20'))
  const ended = workers.map((worker) => once(worker, 'exit'))
  const killed = new Set<number>()
  for (let round = 0; round < 3; round++) {
    const mortal = taker(path, log)
    await once(mortal.stdout as NonNullable<typeof mortal.stdout>, 'data')
    killed.add(mortal.pid as number)
    mortal.kill('SIGKILL')
    await once(mortal, 'exit')
  }
  expect((await Promise.all(ended)).map(([status]) => status)).toEqual([0, 0, 0])
  let owner: number | undefined
  let times = 0
  for (const line of readFileSync(log, 'utf8').trim().split('\n')) {
    const pid = Number.parseInt(line, 10)
    if (line.endsWith('has it')) {
      if (owner !== undefined) expect(killed).toContain(owner)
      owner = pid
      times++
    } else {
      expect(owner).toBe(pid)
      owner = undefined
    }
  }
  expect(times).toBe(3 * 20 + 3)
})

test('owners come one after the other in one process, too; links to a folder are one lock, and other names are others', async () => {
  mkdirSync(join(folder, 'real'))
  symlinkSync(join(folder, 'real'), join(folder, 'link'))
  const release = await acquire(join(folder, 'real', 'one.lock'))
  const order: string[] = []
  const waiting = Promise.all(
    ['first', 'second', 'third'].map(async (name) => {
      const next = await acquire(join(folder, 'link', 'one.lock'))
      order.push(`${name} in`)
      await new Promise(setImmediate)
      order.push(`${name} out`)
      next()
    })
  )
  ;(await acquire(join(folder, 'real', 'two.lock')))()
  expect(order).toEqual([])
  release()
  await waiting
  expect(order.map((line) => line.split(' ')[1])).toEqual(['in', 'out', 'in', 'out', 'in', 'out'])
})

/** A process that has the lock until it is killed. */
async function owner(path: string): Promise<ChildProcess> {
  const child = taker(path, join(folder, 'owners'))
  await once(child.stdout as NonNullable<typeof child.stdout>, 'data')
  return child
}
async function kill(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL')
  await once(child, 'exit')
}
/** Waits until the process, by flock, waits for the lock of this file. */
async function waiting(path: string): Promise<void> {
  const inode = `:${statSync(path).ino} `
  while (
    !readFileSync('/proc/locks', 'utf8')
      .split('\n')
      .some((line) => line.includes('->') && line.includes(inode))
  )
    await sleep(10)
}

test('a file that is removed and made again has one owner, who knows it', async () => {
  const path = join(folder, 'again.lock')
  const first = await owner(path)
  const late = acquire(path)
  await waiting(path)
  // The waiter has the first file open. Meanwhile another process takes the second one.
  rmSync(path)
  const second = await owner(path)
  const its = statSync(path).ino
  let got = false
  late.then(() => {
    got = true
  })
  await kill(first)
  await waiting(path)
  expect(got).toBe(false)
  expect(await tryAcquire(path)).toBeNull()
  expect(statSync(path).ino).toBe(its)
  await kill(second)
  const release = await late
  expect(await tryAcquire(path)).toBeNull()
  release()
  release()
  expect(existsSync(path)).toBe(false)
})

test('who lets go of a file that is another’s by now leaves it', async () => {
  const path = join(folder, 'moved.lock')
  const release = await acquire(path)
  renameSync(path, `${path}.aside`)
  const next = await acquire(path)
  release()
  expect(await tryAcquire(path)).toBeNull()
  next()
  rmSync(`${path}.aside`)
})

test('waiting can be ended', async () => {
  const path = join(folder, 'ended.lock')
  const release = await acquire(path)
  const controller = new AbortController()
  const late = acquire(path, { signal: controller.signal })
  await waiting(path)
  controller.abort(new Error('no longer wanted'))
  await expect(late).rejects.toThrow('no longer wanted')
  await expect(acquire(path, { signal: AbortSignal.abort() })).rejects.toThrow('aborted')
  release()
  ;(await acquire(path))()
})

test('what the owner starts does not keep the lock', async () => {
  const path = join(folder, 'inherited.lock')
  const release = await acquire(path)
  const child = spawn('sh', ['-c', 'echo up; read line'], { stdio: ['pipe', 'pipe', 'inherit'] })
  try {
    await once(child.stdout, 'data')
    const open = readdirSync(`/proc/${child.pid}/fd`).map((name) => readlinkSync(`/proc/${child.pid}/fd/${name}`))
    expect(open.length).toBeGreaterThan(0)
    expect(open).not.toContain(path)
    release()
    const next = await tryAcquire(path)
    expect(next).not.toBeNull()
    next?.()
  } finally {
    await kill(child)
  }
})

test('the lock holds against processes with a network of their own', async (context) => {
  const apart = ['--map-root-user', '--net']
  if (spawnSync('unshare', [...apart, 'true']).status !== 0) return skip(context, 'this machine gives nobody a network of their own (unshare --net)')
  const path = join(folder, 'network.lock')
  const release = await acquire(path)
  const attempt = `const { tryAcquire } = await import(${lock}); console.log((await tryAcquire(process.argv[1])) === null ? 'taken' : 'free')`
  const tell = () => spawnSync('unshare', [...apart, process.execPath, '--input-type=module', '-e', attempt, path], { encoding: 'utf8' }).stdout
  expect(tell()).toBe('taken\n')
  release()
  expect(tell()).toBe('free\n')
})

test('a link is not a lock, and a folder that is gone is told', async () => {
  symlinkSync(join(folder, 'elsewhere'), join(folder, 'link.lock'))
  await expect(acquire(join(folder, 'link.lock'))).rejects.toThrow('ELOOP')
  await expect(acquire(join(folder, 'nowhere', 'x.lock'))).rejects.toThrow('ENOENT')
  expect(existsSync(join(folder, 'elsewhere'))).toBe(false)
})
