/** What scripts/imports.mjs refuses: each kind is tested in a scratch tree of a few files. `npm run lint` checks that the real tree is in order. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'

const script = fileURLToPath(new URL('../../scripts/imports.mjs', import.meta.url))
const scratch = mkdtempSync(join(tmpdir(), 'node-kvm-imports-'))
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

/** Nothing is wrong with this tree: a comment and a text that look like imports are none. */
const sound = {
  'lib/index.ts': "export { Vm } from './kvm/vm.js'",
  'lib/abi/errors.ts': "export const text = \"import '../kvm/vm.js'\"\n// import '../observe/index.js'",
  'lib/kvm/vm.ts': "import { readFileSync } from 'node:fs'\nimport { text } from '../abi/errors.js'\nexport class Vm {}",
  'lib/observe/index.ts': "import type { Vm } from '../kvm/vm.js'\nexport const trace = (vm: Vm) => vm",
  'lib/cli/main.ts': "import '../../lab/run.js'\nawait import('../observe/index.js')",
  'lab/run.ts': 'export {}',
  'native/core/run.h': '#include <errno.h>',
  'native/napi/vcpu.cc': '#include <napi.h>\n#include "core/run.h"'
}

let trees = 0
function check(changed: Record<string, string>): { status: number | null; said: string } {
  const tree = join(scratch, String(trees++))
  for (const [file, text] of Object.entries({ ...sound, ...changed })) {
    mkdirSync(dirname(join(tree, file)), { recursive: true })
    writeFileSync(join(tree, file), text)
  }
  const { status, stderr } = spawnSync(process.execPath, [script, tree], { encoding: 'utf8' })
  return { status, said: stderr }
}

test('a tree in order passes', () => {
  expect(check({})).toEqual({ status: 0, said: '' })
})

test.for<[kind: string, changed: Record<string, string>, said: string]>([
  [
    'a room that imports one above it',
    { 'lib/abi/errors.ts': "import { Vm } from '../kvm/vm.js'", 'lib/kvm/vm.ts': 'export class Vm {}' },
    'lib/abi/errors.ts imports lib/kvm/vm.ts, but lib/abi must not know lib/kvm: it stands on no other room.\n'
  ],
  [
    'a room that imports one beside it, by type alone',
    { 'lib/observe/index.ts': "import type { Guest } from '../testing/guest.js'", 'lib/testing/guest.ts': 'export class Guest {}' },
    'lib/observe/index.ts imports lib/testing/guest.ts, but lib/observe must not know lib/testing: '
  ],
  ['the lab that imports the library', { 'lab/run.ts': "export { text } from '../lib/abi/errors.js'" }, 'lab must not know lib/abi'],
  [
    'a room that imports one above it by the name of its door',
    { 'lib/abi/errors.ts': "export type Tables = import('node-kvm/observe').Tables" },
    'lib/abi/errors.ts imports lib/observe/index.ts'
  ],
  [
    'a circle of two files, one way by type alone',
    {
      'lib/kvm/vm.ts': "import { Vcpu } from './vcpu.js'\nexport class Vm {}",
      'lib/kvm/vcpu.ts': "import type { Vm } from './vm.js'\nexport class Vcpu {}"
    },
    'lib/kvm/vcpu.ts imports lib/kvm/vm.ts imports lib/kvm/vcpu.ts: that is a circle.'
  ],
  [
    'a circle of three files that is closed by a dynamic import',
    { 'lab/a.ts': "import './b.js'", 'lab/b.ts': "export * from './c.js'", 'lab/c.ts': "await import('./a.js')" },
    'lab/a.ts imports lab/b.ts imports lab/c.ts imports lab/a.ts: that is a circle.'
  ],
  [
    'a door that reaches an optional room through another file',
    { 'lib/kvm/vm.ts': "export { trace as Vm } from '../observe/index.js'", 'lib/observe/index.ts': 'export const trace = 1' },
    'The door lib/index.ts leads to lib/observe, which whoever opens it did not ask for: lib/index.ts imports lib/kvm/vm.ts imports lib/observe/index.ts.'
  ],
  [
    'a core that includes the wrappers',
    { 'native/core/run.h': '#include "napi/vcpu.h"', 'native/napi/vcpu.h': '' },
    'native/core must not know native/napi'
  ],
  [
    'a core that includes the observers',
    { 'native/core/run.h': '#include "../observe/ring.h"', 'native/observe/ring.h': '' },
    'native/core must not know native/observe'
  ],
  ['an observer that knows of JavaScript', { 'native/observe/ring.cc': '#include <napi.h>' }, 'native/observe must know nothing of JavaScript']
])('%s is refused', ([, changed, said]) => {
  const result = check(changed)
  expect(result.said).toContain(said)
  expect(result.status).toBe(1)
})
