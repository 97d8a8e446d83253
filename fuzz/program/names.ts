/** The names that the text of a program may use. */
import * as attempts from './attempt.js'
import * as guests from './guests.js'
import * as judges from './judge.js'
import * as library from './library.js'
import * as limits from './limits.js'
import * as steps from './steps.js'
import * as values from './values.js'
import * as workers from './workers.js'

/** The fuzzer's own functions, by name. */
export const helpers: Readonly<Record<string, (...given: never[]) => unknown>> = {
  ...attempts,
  ...guests,
  ...judges,
  ...limits,
  ...steps,
  ...values,
  ...workers
}

/** The same functions with the library's exports, and the file with which a Worker starts. */
export const names: Readonly<Record<string, unknown>> = {
  ...library.everything,
  everything: library.everything,
  ...helpers,
  workerFile: new URL('./worker.js', import.meta.url)
}
