import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { TestContext } from 'vitest'
import { skip } from './skip.js'

/** Compiles the program NAME.c, which lies beside this file, into a folder. */
export function compile(context: TestContext, name: string, folder: string): string {
  const program = join(folder, name)
  const { stderr, status, error } = spawnSync('gcc', ['-o', program, fileURLToPath(new URL(`${name}.c`, import.meta.url))], { encoding: 'utf8' })
  if (error) skip(context, `there is no gcc here to compile test/support/${name}.c`)
  if (status !== 0) throw new Error(`${name}.c: ${stderr}`)
  return program
}
