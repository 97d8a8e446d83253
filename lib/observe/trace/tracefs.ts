/** tracefs, in which the kernel describes its tracepoints (Documentation/trace/events.rst). */
import { existsSync, readFileSync } from 'node:fs'
import { errnoName, exhaustion, KvmError } from '../../abi/errors.js'
import { making, opening } from '../../abi/exhausted.js'
import { type NativeDescriptor, native } from '../../abi/native.js'

const usualPlaces = ['/sys/kernel/tracing', '/sys/kernel/debug/tracing']

/** The tree of tracepoints. If the host has not mounted it, it is mounted for this process alone, in no namespace. */
export class Tracefs implements Disposable {
  readonly #root: string
  readonly #mount: NativeDescriptor | undefined

  /** @throws KvmError `unavailable` or `permission` */
  constructor() {
    const place = usualPlaces.find((path) => existsSync(`${path}/events/kvm`) || existsSync(`${path}/events/header_page`))
    if (place !== undefined) {
      this.#root = place
      return
    }
    const mount = making(() => native.openTracefs())
    if (typeof mount === 'number') {
      const exhausted = exhaustion('mounting tracefs', mount)
      if (exhausted) throw exhausted
      const errno = errnoName(mount)
      throw new KvmError(
        errno === 'EPERM' ? 'permission' : 'unavailable',
        `this process can enter no mounted tracefs, and mounting one privately gave ${errno}; tracing needs root, or the permission that node-kvm doctor names under tracefs`,
        { errno }
      )
    }
    this.#mount = mount
    this.#root = `/proc/self/fd/${mount.fd}`
  }

  /** Returns the text of an event's file, or null if this kernel lacks the event. */
  read(event: string, file: 'format' | 'id'): string | null {
    try {
      return opening(`reading the format of ${event}`, () => readFileSync(`${this.#root}/events/${event}/${file}`, 'utf8'))
    } catch (error) {
      if (error instanceof KvmError) throw error
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT') return null
      throw new KvmError('permission', `reading the format of ${event}: ${code}; tracepoints need root, or read access to tracefs`, {
        errno: code ?? 'EIO'
      })
    }
  }

  [Symbol.dispose](): void {
    this.#mount?.close()
  }
}
