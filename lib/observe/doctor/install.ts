/** Looks for programs that the library and its build start, and says how they are installed. */
import { isInstalled } from '../privileges.js'
import { byRoot, type Finding } from './finding.js'

/** Of these programs, those that PATH does not lead to. */
export const missingOf = (programs: readonly string[]): string[] => programs.filter((program) => !isInstalled(program))

/** How packages, named as Debian names them, are installed. */
export function installing(packages: readonly string[]): Pick<Finding, 'remedy' | 'advice'> {
  const names = [...new Set(packages)].join(' ')
  return isInstalled('apt-get')
    ? byRoot(`apt-get install -y ${names}`)
    : { advice: `install what Debian calls ${names} with this machine's package manager` }
}
