import { existsSync, readdirSync } from 'node:fs'

/** Returns the files in some folders, but not in folders below them, whose names match. */
export function globSync(folders, pattern) {
  return folders.filter(existsSync).flatMap((folder) =>
    readdirSync(folder)
      .filter((name) => pattern.test(name))
      .map((name) => `${folder}/${name}`)
  )
}
