/**
 * A lock between the processes of this machine: a Unix socket with an abstract name, which is bound by one process at a time (unix(7)).
 *
 * That owners come one after the other is the kernel's doing. bind(2) takes a name or gives EADDRINUSE, under a lock of its own; the name is
 * free again when the socket is closed, by its owner or by the kernel at the owner's end, whatever that was. Nothing is left of a dead owner
 * that anybody would have to judge, and nobody can take a name from who has it: there is no step between looking and taking.
 * A waiter connects to the owner. The connection breaks when the owner lets go, and not before; then the waiter tries to bind. Of many one
 * succeeds, and the others wait for that one.
 *
 * Abstract names belong to a network namespace. Containers with networks of their own that share a folder do not see each other's locks.
 */
import { createHash } from 'node:crypto'
import { realpathSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** By the real path, so that links to a folder are one lock; hashed, as a name has 107 bytes at most. */
export function lockName(path: string): string {
  const real = join(realpathSync(dirname(path)), basename(path))
  return `\0node-kvm-lab-${createHash('sha256').update(real).digest('hex')}`
}

/** The socket, or null when another process has the name. */
function bind(name: string): Promise<Server | null> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('listening', () => resolve(server))
    server.once('error', (error: NodeJS.ErrnoException) => (error.code === 'EADDRINUSE' ? resolve(null) : reject(error)))
    // For this process, and not for the primary of a cluster.
    server.listen({ path: name, exclusive: true })
  })
}

/** Waits until the owner lets go. It need not accept the connection: the kernel queues it, and breaks it at the end. */
async function ended(name: string): Promise<void> {
  const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    const socket = connect({ path: name })
    let failed: NodeJS.ErrnoException | undefined
    socket.on('error', (reason) => (failed = reason)).on('close', () => resolve(failed))
    socket.resume()
  })
  // So many wait already that the queue is full.
  if (error?.code === 'EAGAIN') await sleep(100)
}

/** Waits for the lock of this name, which stands for `path`; what comes back lets go of it, as the end of the process does. */
export async function acquire(path: string): Promise<() => void> {
  const name = lockName(path)
  for (;;) {
    const server = await bind(name)
    if (server) return hold(server)
    await ended(name)
  }
}

function hold(server: Server): () => void {
  const waiters = new Set<Socket>()
  server.unref()
  // Where the connection cannot be accepted (EMFILE), the waiter stays in the queue.
  server.on('error', () => {})
  server.on('connection', (socket) => {
    waiters.add(socket.unref())
    socket.on('error', () => {}).on('close', () => waiters.delete(socket))
  })
  return () => {
    server.close()
    for (const socket of waiters) socket.destroy()
  }
}
