/**
 * A stranger can add an ioctl, an exit or an event by CONTRIBUTING.md alone: the test puts the blocks of a recipe where the sentences before them
 * say, in a copy of the checkout, and runs the recipe's commands there. If the library itself gets a recipe's example one day, the recipe needs another.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { needsKvm, needsTracepoints } from '../support/needs.js'
import { patience } from '../support/patience.js'
import { skip } from '../support/skip.js'

/** A block of the recipe, and its place: beside a line of the file, or, if no line is named, in a new file. */
interface Step {
  file: string
  side?: 'above' | 'below'
  line?: string
  text: string
}
const place = /In (?:the new file )?`(?<file>[^`]+)`(?:, (?<side>above|below) the line (?<quote>`+) ?(?<line>.+?) ?\k<quote>)?/
const block = /```\w+\n(?<text>.*?)^```$/
const document = readFileSync('CONTRIBUTING.md', 'utf8')

function recipe(name: string): { steps: Step[]; commands: string[]; blocks: number } {
  const text = document.split(`## How to add ${name}\n`)[1]?.split('\n## ')[0] ?? ''
  const steps = [...text.matchAll(new RegExp(`${place.source}:\\n\\n${block.source}`, 'gms'))].map(({ groups }) => groups as unknown as Step)
  const commands = [...text.matchAll(/^```sh\n(.*?)^```$/gms)].flatMap(([, lines = '']) => lines.trim().split('\n'))
  return { steps, commands, blocks: text.match(/^```\w+$/gm)?.length ?? 0 }
}
// The recipes follow one another in one copy: the commands of the last one build and lint all of them.
const recipes = ['an exit', 'a trace event', 'an ioctl']

// The Makefile of node-gyp has relative paths to Node's headers, so the copy lies as deep below the root as the checkout does.
const deeper = process.cwd().split('/').length - join(tmpdir(), 'node-kvm').split('/').length

/** Why the copy cannot be built; undefined if it can. */
const unbuildable = ['g++', 'make'].some((program) => spawnSync(program, ['--version']).error)
  ? 'there is no g++ or no make here, to build the add-on'
  : existsSync('build/Makefile')
    ? deeper < 0
      ? 'the checkout lies nearer to the root than any copy would, and its Makefile has relative paths'
      : undefined
    : 'node-gyp has not built the add-on of this checkout, whose objects are used again'

let folder: string
let copy: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'node-kvm-contributing-'))
  copy = join(folder, ...Array.from({ length: deeper }, () => 'checkout'))
  mkdirSync(copy, { recursive: true })
  if (unbuildable === undefined) copyCheckout()
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Copies the checkout without its history and without files that other tools than node-gyp and tsc have built; links to its dependencies. */
function copyCheckout(): void {
  const source = resolve('.')
  const isLeft = (path: string) => /^(\.git|node_modules|prebuilds|build-.*)$/.test(relative(source, path))
  // The times are kept, because make compiles each file that is newer than its object.
  cpSync(source, copy, { recursive: true, preserveTimestamps: true, filter: (path) => !isLeft(path) })
  symlinkSync(join(source, 'node_modules'), join(copy, 'node_modules'))
}

function take({ file, side, line, text }: Step): void {
  const path = join(copy, file)
  if (line === undefined) {
    if (existsSync(path)) throw new Error(`CONTRIBUTING.md makes a new file ${file}, which is there already`)
    writeFileSync(path, text)
    return
  }
  const lines = readFileSync(path, 'utf8').split('\n')
  const places = lines.flatMap((each, index) => (each.trim() === line ? [index] : []))
  const [index] = places
  if (index === undefined || places.length > 1)
    throw new Error(`CONTRIBUTING.md speaks of the line '${line}' in ${file}, which has ${places.length} such lines`)
  lines.splice(side === 'above' ? index : index + 1, 0, text.replace(/\n$/, ''))
  writeFileSync(path, lines.join('\n'))
}

/** @returns what a command printed in the copy */
async function run(program: string, ...words: string[]): Promise<string> {
  // The copy has an add-on of its own, which was not built for a sanitizer.
  const { NODE_KVM_ADDON: _, LD_PRELOAD: __, ...inherited } = process.env
  const env = { ...inherited, npm_config_cache: join(folder, 'npm') }
  // The command has a process group of its own, so that nothing is left of it if it hangs.
  const child = spawn(program, words, { cwd: copy, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  const limit = setTimeout(() => process.kill(-(child.pid as number), 'SIGKILL'), patience)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text))
  const [status, signal] = await once(child, 'close')
  clearTimeout(limit)
  expect({ status, signal }, `${words.join(' ')}\n${output}`).toEqual({ status: 0, signal: null })
  return output
}

/** Checks what the recipe promises of its method, whether or not the recipe's own test checks it. */
const program = `
  import { Kvm, KvmError } from './dist/lib/index.js'
  const kvm = Kvm.open()
  const failure = (id, before = () => {}) => {
    const vm = kvm.createVm()
    try {
      before(vm)
      vm.interrupts.setBootProcessor(id)
    } catch (error) {
      return error instanceof KvmError ? [error.code, error.argument ?? error.errno] : String(error)
    } finally {
      vm.close()
    }
  }
  const vm = kvm.createVm()
  vm.interrupts.createIrqchip()
  vm.interrupts.setBootProcessor(1)
  const states = [0, 1].map((id) => vm.createVcpu(id).events.getMpState())
  const wrong = [-1, 0.5, 2 ** 32, NaN, 1n, '1', null, undefined, {}, Object.create(null), Symbol('1'), () => 1].map((id) => failure(id))
  console.log(JSON.stringify({ states, wrong, late: failure(0, (vm) => vm.createVcpu()), closed: failure(0, (vm) => vm.close()) }))`

test.for(recipes)('each block of the recipe for %s says where it belongs, or is run', (name) => {
  const { steps, commands, blocks } = recipe(name)
  expect(steps.length).toBeGreaterThan(4)
  expect(commands.length).toBeGreaterThan(1)
  expect(blocks).toBe(steps.length + 1)
})

test.for(recipes)('the recipe for %s leads there', async (name, context) => {
  needsKvm(context)
  if (name === 'a trace event') needsTracepoints(context)
  if (unbuildable !== undefined) skip(context, unbuildable)
  const { steps, commands } = recipe(name)
  for (const step of steps) take(step)
  for (const command of commands) await run('/bin/sh', '-c', command)
  if (name !== 'an ioctl') return
  for (const told of ['fuzz/api.ts', 'CHANGELOG.md']) expect(readFileSync(join(copy, told), 'utf8')).toContain('interrupts.setBootProcessor')
  const [uninitialized, runnable] = [1, 0]
  expect(JSON.parse(await run(process.execPath, '--input-type=module', '-e', program))).toEqual({
    states: [uninitialized, runnable],
    wrong: Array(12).fill(['argument', 'id']),
    late: ['ioctl', 'EBUSY'],
    closed: ['closed', null]
  })
})
