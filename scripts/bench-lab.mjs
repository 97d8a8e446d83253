// Measures wall times of the lab, with images that are there already. Nothing is asserted here.
import { spawnSync } from 'node:child_process'

const node = (...args) => {
  const started = Date.now()
  const { status } = spawnSync(process.execPath, ['dist/lib/cli/main.js', 'lab', ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
  return `${((Date.now() - started) / 1000).toFixed(1)} s${status === 0 ? '' : ` (status ${status})`}`
}

const goals = { npt: 12, ept: 35 }
for (const [lane, goal] of Object.entries(goals))
  for (const kernel of ['6.1', '6.12']) {
    node('prepare', '--lane', lane, '--kernel', kernel)
    const [cold, ...restored] = [['--cold'], [], []].map((more) => node('run', lane, '--kernel', kernel, ...more, '--', 'node', '-e', '0'))
    console.log(`lab run ${lane} --kernel ${kernel} -- node -e 0: ${cold} cold (goal ${goal} s), ${restored.join(' and ')} from the saved state`)
  }
