/**
 * Bochs can be told to save its state only through its screen, and its only screen listens on every address of its machine, without a password. So
 * Bochs gets a network of its own (network_namespaces(7)), which nobody else is on.
 */
import { spawn } from 'node:child_process'
import { connect } from 'node:net'
import { Duplex } from 'node:stream'
import { execute } from './command.js'
import { LabError } from './errors.js'

/** Command lines that give the program behind them a network of its own. An ordinary user can make one as the root of a user namespace. */
const ways = [
  ['unshare', '--net'],
  ['unshare', '--map-root-user', '--net']
]

/** Says why such a command line does not work here; null if it works. */
async function refusal([program = '', ...words]: readonly string[]): Promise<string | null> {
  const { code, err } = await execute(program, [...words, 'true'], { from: 'util-linux' })
  return code === 0 ? null : err.toString().trim()
}

/** The first of these command lines that works here. */
export async function ownNetwork(): Promise<readonly string[]> {
  const reasons: string[] = []
  for (const way of ways) {
    const reason = await refusal(way)
    if (reason === null) return way
    reasons.push(`  ${way.join(' ')}: ${reason}`)
  }
  throw new LabError(
    'Bochs shows its screen on every address of this machine, without a password, and this machine gives it no network of its own:\n' +
      `${reasons.join('\n')}\nIn a container, let it make user namespaces (a seccomp profile and an AppArmor profile that allow unshare); or, where nobody else is on` +
      ` this network, give lab run and lab prepare the option --screen-on-network.`
  )
}

/**
 * Connects to a port on the loopback address of the network in which a process is.
 * @param ownWay what ownNetwork() returned for the process, or nothing if it is in this machine's network
 * @param helper a busybox, whose nc carries the bytes
 */
export function connectIn(pid: number, ownWay: readonly string[], port: number, helper: string): Duplex {
  if (ownWay.length === 0) return connect(port, '127.0.0.1')
  const user = ownWay.includes('--map-root-user') ? ['--user', '--preserve-credentials'] : []
  const words = [
    '--target',
    String(pid),
    ...user,
    '--net',
    helper,
    'sh',
    '-c',
    `"$0" ifconfig lo 127.0.0.1 up && exec "$0" nc 127.0.0.1 ${port}`,
    helper
  ]
  const child = spawn('nsenter', words, { stdio: ['pipe', 'pipe', 'ignore'] })
  const connection = Duplex.from({ readable: child.stdout, writable: child.stdin })
  child.on('error', (error) => connection.destroy(error))
  connection.on('close', () => child.kill('SIGKILL'))
  return connection
}
