import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { patience } from './test/support/patience.js'

const inLab = process.env['NODE_KVM_LAB'] !== undefined
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))

/** The sources, each file transformed when it is imported; in the lab, where that takes 20 seconds, what tsc has made of them. */
const library = inLab
  ? [
      { find: /^node-kvm$/, replacement: here('dist/lib/index.js') },
      { find: /^node-kvm\/(\w+)$/, replacement: here('dist/lib/$1/index.js') },
      { find: /^(?:\.\.\/)+(lib|lab)\/(.*)\.[jt]s$/, replacement: here('dist/$1/$2.js') }
    ]
  : [
      { find: /^node-kvm$/, replacement: here('lib/index.ts') },
      { find: /^node-kvm\/(\w+)$/, replacement: here('lib/$1/index.ts') }
    ]

export default defineConfig({
  resolve: { alias: library },
  test: {
    include: ['test/**/*.test.ts'],
    // A process a file: what one file leaves behind cannot help or hurt the next. In the lab's emulated machines one for all: a process
    // with vitest and the library takes longer to start there than most files' tests take. Every other run of the suite isolates.
    pool: 'forks',
    isolate: !inLab,
    server: { deps: { external: inLab ? [/\/dist\/(lib|lab)\//] : [] } },
    // A module that several files import is evaluated once where they share a process, but its hooks must be each file's: as setup files are.
    globalSetup: ['test/support/examine.ts'],
    setupFiles: inLab ? ['test/support/vm.ts'] : [],
    execArgv: ['--expose-gc'],
    fileParallelism: false,
    // Longer than the patience that a test has within it (test/support/patience.ts): what it says then is better than that it took too long.
    testTimeout: 600_000,
    hookTimeout: 600_000,
    expect: { poll: { timeout: patience } }
  }
})
