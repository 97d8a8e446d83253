// Runs a command beside one busy loop for each processor, as many times as the first argument says: node scripts/busy.mjs 3 npx vitest run
// If a test fails here and not alone, it depends on time.
import { spawn } from 'node:child_process'
import { availableParallelism } from 'node:os'

const [times, command, ...args] = process.argv.slice(2)
if (!(Number(times) > 0) || command === undefined) {
  console.error('usage: node scripts/busy.mjs TIMES COMMAND...')
  process.exit(2)
}
const loops = Array.from({ length: availableParallelism() }, () => spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }))
let failed = 0
try {
  for (let round = 1; round <= Number(times); round++) {
    const status = await new Promise((resolve) => {
      const child = spawn(command, args, { stdio: 'inherit' })
      child.on('error', (error) => resolve(String(error)))
      child.on('close', resolve)
    })
    console.log(`run ${round} of ${times}: status ${status}`)
    if (status !== 0) failed++
  }
} finally {
  for (const loop of loops) loop.kill('SIGKILL')
}
process.exit(failed === 0 ? 0 : 1)
