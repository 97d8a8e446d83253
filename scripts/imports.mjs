// Reads which file of lib, lab and native imports which, and reports what docs/architecture.md forbids: an import of a room that stands above, a
// circle of files, and a door that leads to a room that its name does not promise. Type-only imports count: a reader of a file has to know what the
// file names.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import ts from 'typescript'

/** The rooms that each room may import beside itself. */
const below = { 'lib/abi': [], lab: [] }
below['lib/x86'] = ['lib/abi']
below['lib/memory'] = ['lib/x86', ...below['lib/x86']]
below['lib/kvm'] = ['lib/memory', ...below['lib/memory']]
below['lib/testing'] = ['lib/kvm', ...below['lib/kvm']]
below['lib/observe'] = ['lib/kvm', ...below['lib/kvm']]
below['lib/walkthrough'] = ['lib/observe', 'lib/testing', ...below['lib/observe']]
below['lib/cli'] = ['lib/walkthrough', ...below['lib/walkthrough'], 'lab']
below['native/core'] = []
below['native/observe'] = ['native/core']
below['native/napi'] = ['native/core', 'native/observe']

/** The doors of the package, and the rooms to which each may lead, directly or through other files. */
const doors = {
  'lib/index.ts': ['lib/kvm', ...below['lib/kvm']],
  'lib/observe/index.ts': ['lib/observe', ...below['lib/observe']],
  'lib/testing/index.ts': ['lib/testing', ...below['lib/testing']],
  'lib/walkthrough/index.ts': ['lib/walkthrough', ...below['lib/walkthrough']]
}

/** The headers through which C++ code uses JavaScript. */
const headersOfJavaScript = ['napi.h', 'node_api.h', 'js_native_api.h', 'uv.h', 'v8.h']

const root = process.argv[2] ?? '.'
const textOf = (file) => readFileSync(join(root, file), 'utf8')
const filesIn = (folder, ends) =>
  existsSync(join(root, folder))
    ? readdirSync(join(root, folder), { recursive: true })
        .map((name) => join(folder, name))
        .filter((name) => ends.some((end) => name.endsWith(end)))
        .sort()
    : []

const roomOf = (file) => Object.keys(below).find((room) => file.startsWith(`${room}/`))

/** The file that a TypeScript file imports by this name, or null if it belongs to another package. */
function sourceOf(file, name) {
  if (name === 'node-kvm') return 'lib/index.ts'
  if (name.startsWith('node-kvm/')) return `lib/${name.slice('node-kvm/'.length)}/index.ts`
  return name.startsWith('.') ? normalize(join(dirname(file), name)).replace(/\.js$/, '.ts') : null
}

function importsOf(file) {
  const names = ts.preProcessFile(textOf(file), true, true).importedFiles.map(({ fileName }) => fileName)
  return [...new Set(names.map((name) => sourceOf(file, name)).filter((name) => name !== null))]
}

/** The files that a C or C++ file includes: files of the tree, or headers of the system. */
function includesOf(file) {
  const lines = textOf(file).split('\n')
  const named = lines.filter((line) => line.startsWith('#include')).map((line) => line.split(/["<>]/)[1] ?? '')
  return [...new Set(named.map((name) => [join(dirname(file), name), join('native', name)].find((path) => existsSync(join(root, path))) ?? name))]
}

const graph = new Map([
  ...[...filesIn('lib', ['.ts']), ...filesIn('lab', ['.ts'])].map((file) => [file, importsOf(file)]),
  ...['native/core', 'native/observe', 'native/napi']
    .flatMap((folder) => filesIn(folder, ['.cc', '.h', '.c']))
    .map((file) => [file, includesOf(file)])
])

/** The shortest way from a file to another one that satisfies `isEnd`, both included; null if there is none. */
function wayFrom(start, isEnd) {
  const cameFrom = new Map()
  for (const queue = [start]; queue.length > 0; ) {
    const file = queue.shift()
    for (const next of graph.get(file) ?? []) {
      if (isEnd(next)) {
        const way = [next]
        for (let at = file; at !== undefined; at = cameFrom.get(at)) way.unshift(at)
        return way
      }
      if (next === start || cameFrom.has(next)) continue
      cameFrom.set(next, file)
      queue.push(next)
    }
  }
  return null
}

function* wrongArrows() {
  for (const [file, imported] of graph) {
    const room = roomOf(file)
    for (const other of imported) {
      const named = roomOf(other)
      if (room && named && named !== room && !below[room].includes(named))
        yield `${file} imports ${other}, but ${room} must not know ${named}: ${below[room].length > 0 ? `it stands on ${below[room].join(', ')} alone` : 'it stands on no other room'}.`
      if ((room === 'native/core' || room === 'native/observe') && headersOfJavaScript.includes(other))
        yield `${file} includes ${other}, but ${room} must know nothing of JavaScript: code that needs it belongs to native/napi.`
    }
  }
}

/** Yields each circle once, at its shortest from its first file on. */
function* circles() {
  const told = new Set()
  for (const file of graph.keys()) {
    if (told.has(file)) continue
    const way = wayFrom(file, (next) => next === file)
    if (!way) continue
    for (const each of way) told.add(each)
    yield `${way.join(' imports ')}: that is a circle. Move the code that both sides need to a file of its own, or let a caller that knows both sides pass it in.`
  }
}

function* doorsThatLeadAstray() {
  for (const [door, rooms] of Object.entries(doors)) {
    const way = graph.has(door) && wayFrom(door, (next) => roomOf(next) !== undefined && !rooms.includes(roomOf(next)))
    if (way) yield `The door ${door} leads to ${roomOf(way.at(-1))}, which whoever opens it did not ask for: ${way.join(' imports ')}.`
  }
}

const wrong = [...wrongArrows(), ...circles(), ...doorsThatLeadAstray()]
for (const sentence of wrong) console.error(sentence)
console.log(
  `${graph.size} files, ${wrong.length === 0 ? 'no import that the rooms forbid' : `${wrong.length} imports or circles that the rooms forbid`}`
)
process.exit(wrong.length === 0 ? 0 : 1)
