import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { acquire } from '../../lab/lock.js'

const folder = mkdtempSync(join(tmpdir(), 'node-kvm-lock-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const library = new URL('../../dist/lab/lock.js', import.meta.url).href

// Writes down when it has the lock and when it lets go. One that stays is killed with the lock.
const program = `
  const { appendFileSync } = await import('node:fs')
  const { acquire } = await import('${library}')
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
  // What an owner of the first version left, which waiters took away from under each other.
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

test('in one process, too; links to a folder are one lock, and other names are others', async () => {
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
