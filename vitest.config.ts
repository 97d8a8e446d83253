import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const inLab = process.env['NODE_KVM_LAB'] !== undefined

export default defineConfig({
  resolve: { alias: { 'node-kvm': fileURLToPath(new URL('lib/index.ts', import.meta.url)) } },
  test: {
    include: ['test/**/*.test.ts'],
    // A process a file: what one file leaves behind cannot help or hurt the next. In the lab's emulated machines a process with vitest and
    // the library takes a quarter of a minute to start, longer than most files' tests take: one for all. Every other run of the suite isolates.
    pool: 'forks',
    isolate: !inLab,
    // A module that several files import is evaluated once where they share a process, but its hooks must be each file's: as setup files are.
    setupFiles: inLab ? ['test/support/vm.ts'] : [],
    execArgv: ['--expose-gc'],
    fileParallelism: false,
    // A hundredth of the speed.
    testTimeout: inLab ? 600_000 : 60_000
  }
})
