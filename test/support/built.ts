/** The files that tsc made of the sources, for child processes and Workers: vitest does not transform the files that these load. */
import { fileURLToPath, pathToFileURL } from 'node:url'

/** The path of a file in dist, such as 'bench/main.js'. */
export const built = (path: string) => fileURLToPath(new URL(`../../dist/${path}`, import.meta.url))

/** The same path as a literal, for the text of a program that imports the file. */
export const importable = (path: string) => JSON.stringify(pathToFileURL(built(path)).href)

/** The library's doors as such literals. */
export const library = importable('doors/index.js')
export const observe = importable('doors/observe.js')
export const testing = importable('doors/testing.js')

/** The program `node-kvm`. */
export const commandLine = built('lib/cli/main.js')
