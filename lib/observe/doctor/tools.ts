/** Checks the programs of the host: GNU binutils for assemble(), and the programs that make the lab's machines. */
import { spawnSync } from 'node:child_process'
import { exhaustion } from '../../abi/errors.js'
import { exhaustedAdvice, type Finding, found, itsAdvice, lacking, whatHappened } from './finding.js'
import { installing, missingOf } from './install.js'

/** Returns the code by which ./limits.ts and exhaustion() know the error: a process cannot be made if there is no room for another thread. */
function codeOf(error: NodeJS.ErrnoException): string {
  return error.code === 'EAGAIN' ? 'threads' : (error.code ?? 'EIO')
}

/** Runs each program, since an installed program may still not start. */
export function checkBinutils(): Finding {
  const runs = ['as', 'ld'].map((program) => ({ program, ...spawnSync(program, ['--version'], { stdio: 'ignore' }) }))
  const exhausted = runs.map(({ error }) => error && exhaustion('running as and ld', codeOf(error))).find(Boolean)
  if (exhausted) return lacking('binutils', whatHappened(exhausted), exhaustedAdvice(exhausted) ?? { advice: itsAdvice(exhausted) })
  const failing = runs.filter(({ status }) => status !== 0).map(({ program }) => program)
  return failing.length === 0
    ? found('binutils', 'as and ld run, for assemble() and the examples')
    : lacking('binutils', `${failing.join(' and ')} cannot be run, which assemble() needs`, installing(['binutils']))
}

/** The programs that lab/ starts, each with its Debian package. */
const ofLab: Record<string, string> = {
  'apt-get': 'apt',
  dpkg: 'dpkg',
  ldd: 'libc-bin',
  mke2fs: 'e2fsprogs',
  flock: 'util-linux',
  setpriv: 'util-linux',
  unshare: 'util-linux',
  nsenter: 'util-linux'
}

export function checkLab(): Finding {
  const missing = missingOf(Object.keys(ofLab))
  if (missing.length === 0) return found('lab', `${Object.keys(ofLab).join(', ')} are here`)
  const detail = `without ${missing.join(', ')} emulated machines cannot be made (node-kvm lab)`
  return missing.includes('apt-get')
    ? lacking('lab', `${detail}: apt installs their kernels and emulators`, { advice: 'use Debian or Ubuntu, or a container of one of them' })
    : lacking('lab', detail, installing(missing.map((program) => ofLab[program] as string)))
}
