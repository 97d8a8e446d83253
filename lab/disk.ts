/** Makes ext4 images and fills them without mounting, so that no root is needed. results.ts reads them back. */
import { closeSync, lstatSync, openSync, readdirSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { command } from './command.js'

/** The size of one cylinder as Bochs counts it: Bochs refuses a disk that ends within a cylinder. */
const cylinder = 16 * 63 * 512
const MiB = 1 << 20

/**
 * Disks have few sizes, so that one saved state fits many of them: a power of two times this size, which is a little less than 1 GiB. The files have
 * holes.
 */
export const smallestDisk = 2048 * cylinder

interface Options {
  label: string
  /** Room beyond the folder's content. */
  spareMiB?: number
}

function usage(folder: string): { bytes: number; files: number } {
  let bytes = 0
  let files = 0
  for (const { name } of readdirSync(folder, { withFileTypes: true })) {
    const stat = lstatSync(join(folder, name))
    files++
    if (stat.isDirectory()) {
      const below = usage(join(folder, name))
      bytes += below.bytes
      files += below.files
    } else bytes += Math.ceil(stat.size / 4096) * 4096
  }
  return { bytes, files }
}

interface Size {
  files: number
  /** The size of the file system. */
  blocks: number
  /** The size of the disk, which may be larger. */
  bytes: number
}

function sizeOf(folder: string, spareMiB: number): Size {
  const { bytes, files } = usage(folder)
  const cylinders = Math.ceil((bytes * 1.05 + (files + 2000) * 512 + (spareMiB + 4) * MiB) / cylinder)
  const used = cylinders * cylinder
  return { files, blocks: used / 4096, bytes: smallestDisk * 2 ** Math.max(0, Math.ceil(Math.log2(used / smallestDisk))) }
}

/** The size in bytes of a disk for the folder's content. */
export const diskSize = (folder: string, { spareMiB = 8 }: Partial<Options>) => sizeOf(folder, spareMiB).bytes

/** Makes an image with the folder's content. It has no journal, because nothing on it outlives a failed run. */
export async function makeDisk(image: string, folder: string, { label, spareMiB = 8 }: Options): Promise<void> {
  const { files, blocks, bytes } = sizeOf(folder, spareMiB)
  await command(
    'mke2fs',
    [
      '-q',
      '-F',
      '-t',
      'ext4',
      '-b',
      '4096',
      '-I',
      '256',
      '-N',
      String(files + 4000),
      '-O',
      '^has_journal,^resize_inode',
      '-m',
      '0',
      '-E',
      'lazy_itable_init=1,root_owner=0:0',
      '-L',
      label,
      '-d',
      folder,
      image,
      String(blocks)
    ],
    { from: 'e2fsprogs' }
  )
  truncateSync(image, bytes)
}

/** Makes a disk that has nothing on it yet. */
export function blankDisk(image: string, bytes: number): void {
  closeSync(openSync(image, 'w'))
  truncateSync(image, bytes)
}
