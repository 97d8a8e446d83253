import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  resolve: { alias: { 'node-kvm': fileURLToPath(new URL('lib/index.ts', import.meta.url)) } },
  test: {
    include: ['test/**/*.test.ts'],
    // A process a file: what one file leaves behind cannot help or hurt the next.
    pool: 'forks',
    execArgv: ['--expose-gc'],
    fileParallelism: false,
    // The machines of the lab are emulated: a hundredth of the speed.
    testTimeout: process.env['NODE_KVM_LAB'] ? 600_000 : 60_000
  }
})
