import { spawnSync } from 'node:child_process'
import { beforeEach, describe, expect, test } from 'vitest'
import { runFault } from '../support/fault.js'
import { needsKvm, needsPaging } from '../support/needs.js'
import { skip } from '../support/skip.js'

beforeEach(needsKvm)

/** The output of each program, which ends by itself and writes nothing to standard error. */
const said = (stdout: string, status = 0) => ({ status, signal: null, stdout, stderr: '' })

describe('a vCPU that waits for a page is closed by the thread that serves it', () => {
  test.for([
    ['here', 'vcpu.close', 'vcpu.close stopped\n'],
    ['here', 'vm.close', 'vm.close stopped\n'],
    ['here', 'process.exit', 'over\n'],
    ['handler', 'vcpu.close', 'vcpu.close in the handler stopped\n'],
    ['handler', 'vm.close', 'vm.close in the handler stopped\n'],
    ['handler', 'process.exit', 'over\n'],
    ['worker', 'serves', 'terminated\n'],
    ['worker', 'runs', 'over\n']
  ] as const)('neither of them hangs: %s, %s', async ([what, how, stdout], context) => {
    needsPaging(context)
    expect(await runFault('ends-while-waiting', [what, how])).toEqual(said(stdout))
  })
})

describe('a thread that comes to wait, outside of a run, for a page that it serves itself', () => {
  test.for([
    ['copy', 'memory\n7 2\n'],
    ['hole', '7\nmemory\n7\n'],
    ['call', '256n\n']
  ] as const)('nothing hangs: %s', async ([how, stdout], context) => {
    needsPaging(context)
    expect(await runFault('serving-thread-waits', [how])).toEqual(said(stdout))
  })
})

test('stop() ends the run that start() began, and none of a Worker that shares the vCPU', async () => {
  expect(await runFault('stop-while-shared', ['300'])).toEqual(said('stopped timeout\n'))
})

test('pages are served on after the thread that asked for it is gone', async (context) => {
  needsPaging(context)
  const word = 0x0707070707070707n
  expect(await runFault('server-thread-gone')).toEqual(said(`${word}n\n${word}n\n`))
})

test('a mapping whose handle is lost keeps no process, and its service goes with it', async (context) => {
  needsPaging(context)
  const first = `${0x0707070707070707n}n\n`
  expect(await runFault('lost-mapping')).toEqual(said(first))
  expect(await runFault('lost-mapping', [], { node: ['--expose-gc'] })).toEqual(said(`${first}left 0\n`))
})

test('each exit is told once, whoever sends the signal that interrupts a run', async (context) => {
  if (spawnSync('kill', ['-q', '1', '-s', '0', String(process.pid)]).status !== 0) skip(context, 'no kill command here that queues signals')
  const { stdout, stderr, status } = await runFault('exits-under-signals', ['1.5'])
  expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
  const seen = JSON.parse(stdout)
  expect(seen).toMatchObject({ wrong: 0, other: 0 })
  expect(seen.exits).toBeGreaterThan(100)
})

test('each exit is told once, whoever waits for pages that the same thread serves', async (context) => {
  needsPaging(context)
  const { stdout, stderr, status } = await runFault('exits-while-serving', ['20000'])
  expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
  const seen = JSON.parse(stdout)
  expect(seen).toMatchObject({ twice: 0, lost: 0, other: 0 })
  expect(seen.served).toBeGreaterThan(0)
})
