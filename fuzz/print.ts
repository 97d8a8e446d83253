/** Prints a program that shows a fault, as text that runs by itself. */
import { doors, everything } from './program/library.js'
import { helpers } from './program/names.js'

const library = Object.keys(everything)

const modules: Record<string, readonly string[]> = {
  'node:child_process': ['execFileSync'],
  'node:fs': ['closeSync', 'mkdirSync', 'openSync', 'readdirSync', 'readFileSync', 'readlinkSync', 'rmdirSync', 'writeFileSync', 'writeSync'],
  'node:os': ['constants'],
  'node:vm': ['runInNewContext', 'runInThisContext'],
  'node:worker_threads': ['isMainThread', 'parentPort', 'Worker', 'workerData']
}
/** Whether the text uses the name as a name: behind a dot it is a property, but behind the three dots of a spread it is not. */
const mentions = (text: string, name: string) => new RegExp(`(?<!\\w|(?<!\\.)\\.)${name}\\b`).test(text)

const importOf = (from: string, names: readonly string[]) => (names.length > 0 ? [`import { ${names.join(', ')} } from '${from}'`] : [])
const importOfAll = ['const everything = {}', ...Object.keys(doors).map((door) => `Object.assign(everything, await import('${door}'))`)]

/** The fuzzer's own functions that a text calls, and those that they call in turn. */
function needed(text: string): Map<string, string> {
  const found = new Map<string, string>()
  for (const pending = [text]; pending.length > 0; ) {
    const next = pending.pop() as string
    for (const [name, helper] of Object.entries(helpers))
      if (!found.has(name) && mentions(next, name)) {
        found.set(name, helper.toString())
        pending.push(helper.toString())
      }
  }
  return found
}

export function print(body: string, heading: readonly string[]): string {
  const functions = needed(body)
  const hasWorkers = functions.has('startWorker')
  if (hasWorkers) for (const [name, text] of needed('serve')) functions.set(name, text)
  const rest = [...functions.values()].join('\n')
  const all = `${body}\n${rest}`
  const taken = (names: readonly string[]) => names.filter((name) => mentions(all, name)).sort()
  const imports = Object.entries(modules).flatMap(([module, names]) => importOf(module, taken(names)))
  const timers = [
    ...(mentions(all, 'nextTurn') || mentions(all, 'turn') ? ["import { setImmediate as nextTurn } from 'node:timers/promises'"] : []),
    ...(mentions(all, 'later') ? ["import { setTimeout as later } from 'node:timers/promises'"] : [])
  ]
  return [
    ...heading.map((line) => `// ${line.replaceAll('\n', '\n// ')}`),
    ...imports,
    ...timers,
    ...Object.entries(doors).flatMap(([door, exports]) => importOf(door, taken(Object.keys(exports)))),
    ...(mentions(all, 'everything') ? importOfAll : []),
    ...(hasWorkers ? ['const workerFile = new URL(import.meta.url)'] : []),
    '',
    'async function program() {',
    ...body.split('\n').map((line) => `  ${line}`),
    '}',
    '',
    rest,
    '',
    hasWorkers ? `if (isMainThread) await program()\nelse serve({ ${[...functions.keys(), ...taken(library)].join(', ')} })` : 'await program()',
    ''
  ].join('\n')
}
