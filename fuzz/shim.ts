/** Builds shim.c, and the file through which a child orders failures. */
import { spawnSync } from 'node:child_process'
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The environment that a child needs to use the shim. It is empty where there is no C compiler, and then no n-th call fails. */
export function buildShim(folder: string): Record<string, string> {
  // tsc does not copy the source into dist.
  const source = fileURLToPath(new URL('../../fuzz/shim.c', import.meta.url))
  const library = join(folder, 'shim.so')
  const { status, stderr, error } = spawnSync(process.env['CC'] ?? 'cc', ['-O2', '-shared', '-fPIC', '-fno-builtin', '-o', library, source, '-ldl'], {
    encoding: 'utf8',
    shell: (process.env['CC'] ?? '').includes(' ')
  })
  if (status !== 0) {
    console.error(`fuzz: there is no shim, so no C function fails at its n-th call: ${error?.message ?? stderr}`)
    return {}
  }
  const orders = join(folder, 'orders')
  writeFileSync(orders, '')
  truncateSync(orders, 4096)
  // AddressSanitizer must come first.
  return { LD_PRELOAD: [process.env['LD_PRELOAD'], library].filter(Boolean).join(':'), NODE_KVM_FUZZ_SHIM: orders }
}
