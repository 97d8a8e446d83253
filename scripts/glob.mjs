import { existsSync, readdirSync } from 'node:fs'

/** The files of some folders, not of those below them, whose names match. */
export function globSync(folders, pattern) {
  return folders.filter(existsSync).flatMap((folder) =>
    readdirSync(folder)
      .filter((name) => pattern.test(name))
      .map((name) => `${folder}/${name}`)
  )
}
