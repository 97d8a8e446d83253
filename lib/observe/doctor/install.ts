/** Looks for the programs that the library and its build start, and says how to install them. */
import { isInstalled } from '../privileges.js'
import { byRoot, type Finding } from './finding.js'

/** Returns those of these programs that are not in PATH. */
export const missingOf = (programs: readonly string[]): string[] => programs.filter((program) => !isInstalled(program))

/** Says how to install packages, which are given by their Debian names. */
export function installing(packages: readonly string[]): Pick<Finding, 'remedy' | 'advice'> {
  const names = [...new Set(packages)].join(' ')
  return isInstalled('apt-get')
    ? byRoot(`apt-get install -y ${names}`)
    : { advice: `install what Debian calls ${names} with this machine's package manager` }
}
