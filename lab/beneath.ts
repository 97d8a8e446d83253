/**
 * Folders by their descriptor. Node has no openat(2), but /proc/self/fd/N is the folder that descriptor N has open, wherever its path leads by now
 * (proc_pid_fd(5)). Each step down is one name, which is opened so that a link is refused: nobody can lead a step out of the folder by swapping a
 * folder for a link.
 */
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmdirSync,
  type Stats,
  statSync,
  unlinkSync
} from 'node:fs'
import { dirname } from 'node:path'

/** One component of a path; a name that is not UTF-8 is given as bytes. */
export type Name = string | Buffer

const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_DIRECTORY, O_NOFOLLOW } = constants

export const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code

export class Folder {
  readonly #fd: number

  private constructor(path: Name, flags = 0) {
    this.#fd = openSync(path, O_RDONLY | O_DIRECTORY | flags)
  }

  /** The folder to which a path leads, through any links. */
  static at(path: string): Folder {
    return new Folder(path)
  }

  #path(name: Name): Buffer {
    return Buffer.concat([Buffer.from(`/proc/self/fd/${this.#fd}/`), Buffer.from(name)])
  }

  folder(name: Name): Folder {
    return new Folder(this.#path(name), O_NOFOLLOW)
  }

  makeFolder(name: Name, mode = 0o777): Folder {
    mkdirSync(this.#path(name), { mode })
    return this.folder(name)
  }

  /** Makes a file that was not there before, and returns its descriptor. */
  makeFile(name: Name, mode: number): number {
    return openSync(this.#path(name), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode)
  }

  rename(name: Name, to: Name): void {
    renameSync(this.#path(name), this.#path(to))
  }

  stat(name: Name): Stats | undefined {
    return lstatSync(this.#path(name), { throwIfNoEntry: false })
  }

  get names(): Buffer[] {
    return readdirSync(`/proc/self/fd/${this.#fd}`, { encoding: 'buffer' }) as unknown as Buffer[]
  }

  /** Whether the name leads to this very folder. */
  isAt(parent: Folder, name: Name): boolean {
    const [own, there] = [fstatSync(this.#fd), parent.stat(name)]
    return there !== undefined && own.dev === there.dev && own.ino === there.ino
  }

  setMode(mode: number): void {
    fchmodSync(this.#fd, mode)
  }

  /** Removes the file or folder with this name, and everything in the folder. If the name is a link, the link itself is removed. */
  remove(name: Name): void {
    for (let tries = 0; ; tries++) {
      try {
        this.#removeOnce(name)
        return
      } catch (error) {
        if (codeOf(error) === 'ENOENT') return
        // An emulator that has just been ended may have made another file meanwhile.
        if (codeOf(error) !== 'ENOTEMPTY' || tries === 10) throw error
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50)
      }
    }
  }

  #removeOnce(name: Name): void {
    try {
      unlinkSync(this.#path(name))
    } catch (error) {
      if (codeOf(error) !== 'EISDIR') throw error
      this.#empty(name)
      rmdirSync(this.#path(name))
    }
  }

  #empty(name: Name): void {
    const folder = this.folder(name)
    try {
      // Nothing can be taken out of a folder without the right to write to it, which its owner can give.
      if (fstatSync(folder.#fd).uid === process.geteuid?.()) folder.setMode(0o700)
      for (const inside of folder.names) folder.remove(inside)
    } finally {
      folder.close()
    }
  }

  close(): void {
    closeSync(this.#fd)
  }
}

/**
 * Makes a folder, and the folders above it. Node's own recursive mkdir never ends where a folder's mkdir fails with ENOENT although the folder above
 * exists, as in /proc.
 */
export function makeFolders(path: string, mode = 0o777): void {
  const above = dirname(path)
  if (above !== path && !statSync(above, { throwIfNoEntry: false })) makeFolders(above, mode)
  try {
    mkdirSync(path, { mode })
  } catch (error) {
    // The folder was there, or another process has made it meanwhile.
    if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) throw error
  }
}

/** Removes `name` in the folder at this path, if the folder is there. */
export function removeIn(path: string, name: Name): void {
  const folder = Folder.at(path)
  try {
    folder.remove(name)
  } finally {
    folder.close()
  }
}

const has = (mode: number, bits: number) => (mode & bits) !== 0

/** Says why other users could put something of theirs where the folder is; null if only its owner and the administrator could. */
function weakness(path: string, own: boolean): string | null {
  const { uid, gid, mode } = lstatSync(path)
  // In a user namespace the administrator may have no number of its own: the owner of / is trusted with everything below it.
  const trusted = own ? [process.geteuid?.()] : [process.geteuid?.(), 0, lstatSync('/').uid]
  if (!trusted.includes(uid)) return `${path} belongs to user ${uid}`
  // The user's own group, which may write if the umask is 002, has no other members. In a sticky folder above, such as /tmp, other users can make
  // files of their own, but cannot move this user's.
  const open = own ? has(mode, 0o022) : has(mode, gid === process.getegid?.() ? 0o002 : 0o022) && !has(mode, 0o1000)
  return open ? `${path} can be written to by others (mode ${(mode & 0o7777).toString(8)})` : null
}

/** Returns the first reason not to keep anything in the folder, from the folder upwards. The path has no links. */
export function whyNotOurs(path: string): string | null {
  let reason = weakness(path, true)
  for (let above = path; reason === null && above !== '/'; ) {
    above = dirname(above)
    reason = weakness(above, false)
  }
  return reason
}
