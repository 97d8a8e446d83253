/** Checks the native add-on: whether it is built and loads, and what a build of it needs. */
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { addonPath, mendingCommand } from '../../abi/addon.js'
import type { KvmError } from '../../abi/errors.js'
import { type Finding, found, itsAdvice, lacking, type Situation, whatHappened } from './finding.js'
import { installing, missingOf } from './install.js'

/** The programs that node-gyp starts (its README, "On Unix"); each is in a Debian package of the same name. */
const tools = ['python3', 'make', 'g++']

/** Whether Node's headers are where node-gyp looks before it fetches them. */
function hasHeaders(): boolean {
  const near = join(process.execPath, '../..')
  const home = homeOf()
  const cached = home && join(home, '.cache/node-gyp', process.versions.node)
  return [process.env['npm_config_nodedir'], near, cached].some((folder) => folder && existsSync(join(folder, 'include/node/node_api.h')))
}

/** Returns the home folder. Node throws if neither HOME nor passwd(5) names it. */
function homeOf(): string | undefined {
  try {
    return homedir()
  } catch {
    return undefined
  }
}

/** Checks whether the add-on loads; without it nothing of the library works. */
export function checkAddon({ unloaded }: Situation): Finding {
  if (unloaded === null) return found('add-on', `loads: ${addonPath()}`)
  if ('addon' in unloaded) return notLoading(unloaded)
  return lacking('add-on', `it loads, but cannot start: ${whatHappened(unloaded)}`, { advice: itsAdvice(unloaded) })
}

function notLoading({ addon, reason, message }: KvmError & { addon?: unknown; reason?: unknown }): Finding {
  const what = addon === 'broken' ? `the native build does not load: ${reason}` : 'there is no native build'
  if (process.env['NODE_KVM_ADDON'] !== undefined) return lacking('add-on', message.split('; ', 1)[0] as string, { remedy: mendingCommand() })
  const missing = missingOf(tools)
  const needs =
    missing.length === 0 ? 'python3, make and g++, which a build needs, are installed' : `a build needs ${missing.join(' and ')}, not found here`
  const { remedy, advice } = missing.length === 0 ? {} : installing(missing)
  const advices = [...(advice ? [advice] : []), ...(hasHeaders() ? [] : [fetching])]
  return lacking('add-on', `${what}; ${needs}`, {
    remedy: remedy ? `${remedy} && ${mendingCommand()}` : mendingCommand(),
    ...(advices.length === 0 ? {} : { advice: advices.join('; ') })
  })
}
const fetching =
  "node-gyp will fetch Node's headers from nodejs.org; without a network, set npm_config_nodedir to a folder with include/node/node_api.h"
