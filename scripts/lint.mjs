// Runs every check of the source text, each even when an earlier one failed.
import { spawnSync } from 'node:child_process'
import { globSync } from './glob.mjs'

const native = globSync(['native/core', 'native/observe', 'native/observe/bpf', 'native/napi', 'native/stress', 'bench', 'fuzz'], /\.(cc|h|c)$/)
const checks = [
  ['npx', ['biome', 'check', '--error-on-warnings']],
  ['npx', ['tsc', '-p', 'tsconfig.test.json']],
  ['npx', ['clang-format', '--dry-run', '-Werror', ...native]],
  ['npx', ['publint', '--strict']],
  ['node', ['scripts/imports.mjs']],
  ['node', ['scripts/observing.mjs', '--check']],
  ['node', ['scripts/generate-abi.mjs', '--check']]
]
let failed = 0
for (const [command, args] of checks) {
  const { status } = spawnSync(command, args, { stdio: 'inherit' })
  if (status !== 0) failed++
  console.log(`${status === 0 ? 'ok    ' : 'FAILED'} ${args[0]}`)
}
process.exit(failed === 0 ? 0 : 1)
