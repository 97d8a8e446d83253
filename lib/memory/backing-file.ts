/** Files whose bytes become guest memory. */
import { openSync } from 'node:fs'
import { KvmError } from '../abi/errors.js'
import { opening } from '../abi/exhausted.js'

/**
 * Opens a file whose bytes become guest memory.
 * @param purpose why it is opened, for the error: `to map it`
 */
export function openBackingFile(path: string, mode: 'r' | 'r+', purpose: string): number {
  const asked = `opening ${path} ${purpose}`
  try {
    return opening(asked, () => openSync(path, mode))
  } catch (error) {
    if (error instanceof KvmError) throw error
    const { code = 'EIO' } = error as NodeJS.ErrnoException
    throw new KvmError('memory', `${asked}: ${code}; it must exist, and be readable${mode === 'r' ? '' : ' and writable'}`, { errno: code, path })
  }
}
