import { appendFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { cacheFolder, entry } from '../../lab/cache.js'
import { LabError } from '../../lab/errors.js'

let scratch: string
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'node-kvm-cache-'))
  vi.stubEnv('NODE_KVM_LAB_CACHE', join(scratch, 'cache'))
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(scratch, { recursive: true, force: true })
})

const write = (text: string) => async (folder: string) => writeFileSync(join(folder, 'file'), text)

test('the cache makes an entry once, and another for other inputs', async () => {
  const first = await entry('thing', { input: 1 }, write('first'))
  expect(await entry('thing', { input: 1 }, () => expect.fail('made twice'))).toBe(first)
  expect(await entry('thing', { input: 2 }, write('second'))).not.toBe(first)
})
test.each([
  ['a file cut off', (folder: string) => truncateSync(join(folder, 'file'), 2)],
  ['a file written to', (folder: string) => appendFileSync(join(folder, 'file'), 'more')],
  ['a file gone', (folder: string) => rmSync(join(folder, 'file'))],
  ['a file too many', (folder: string) => writeFileSync(join(folder, 'stray'), '')],
  ['its list gone', (folder: string) => rmSync(join(folder, 'contents.json'))]
])('the cache makes an entry anew that has %s', async (_, damage) => {
  damage(await entry('thing', 1, write('whole')))
  const folder = await entry('thing', 1, write('whole'))
  expect(readFileSync(join(folder, 'file'), 'utf8')).toBe('whole')
  expect(readdirSync(folder).sort()).toEqual(['contents.json', 'file'])
})
test('the cache drops what nobody asked for in a month', async () => {
  const [old, used] = [await entry('thing', 1, write('old')), await entry('thing', 2, write('used'))]
  for (const folder of [old, used]) utimesSync(join(folder, 'contents.json'), 0, 0)
  await entry('thing', 2, write('used'))
  await entry('thing', 3, write('new'))
  expect([existsSync(old), existsSync(used)]).toEqual([false, true])
})
test('the cache keeps nothing of an entry that failed, and says when the disk is full', async () => {
  const full = entry('thing', 1, async (folder) => {
    await write('half')(folder)
    throw new Error('ENOSPC: no space left on device, write')
  })
  await expect(full).rejects.toThrow(LabError)
  await expect(full).rejects.toThrow('no disk space left')
  expect(readdirSync(cacheFolder())).toEqual([])
})
test('the cache makes an entry once for two who ask at once', async () => {
  let made = 0
  const make = async (folder: string) => {
    made++
    await sleep(200)
    await write('one')(folder)
  }
  const [first, second] = await Promise.all([entry('thing', 1, make), entry('thing', 1, make)])
  expect(first).toBe(second)
  expect(made).toBe(1)
})
