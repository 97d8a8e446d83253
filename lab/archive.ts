/**
 * A cpio archive in the format that the kernel expects of an initramfs ("newc"): each file has a header in hexadecimal, and everything is padded to
 * four bytes.
 */
interface ArchivedFile {
  path: string
  mode: number
  data?: Uint8Array | string
}

const folderMode = 0o040755
export const folder = (path: string): ArchivedFile => ({ path, mode: folderMode })
export const executable = (path: string, data: Uint8Array | string): ArchivedFile => ({ path, mode: 0o100755, data })
export const link = (path: string, to: string): ArchivedFile => ({ path, mode: 0o120777, data: to })

const pad = (length: number) => Buffer.alloc((4 - (length % 4)) % 4)

function record({ path, mode, data = '' }: ArchivedFile, inode: number): Buffer {
  const name = Buffer.from(`${path}\0`)
  const content = Buffer.from(data)
  const fields = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length, 0]
  const head = Buffer.concat([Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`), name])
  return Buffer.concat([head, pad(head.length), content, pad(content.length)])
}

export function archive(files: readonly ArchivedFile[]): Buffer {
  return Buffer.concat([...files, { path: 'TRAILER!!!', mode: 0 }].map(record))
}
