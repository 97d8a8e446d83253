/** The errors of the lab, each with the exit status that reports it. */

/** As in env and docker, 125 says that the lab itself failed, and not the command in it. As in timeout, 124 says that the time is over. */
export const labFailed = 125
export const outOfTime = 124

export class LabError extends Error {
  readonly status: number

  constructor(message: string, status = labFailed) {
    super(message)
    this.name = 'LabError'
    this.status = status
  }
}

const noSpace = 'no disk space left'

/** Returns the error; or, if a full disk caused it, an error that says so. The user can set `variable` to another folder. */
export function explained(error: unknown, purpose: string, variable: string): unknown {
  const text = String((error as Error).message)
  if (text.startsWith(noSpace)) return error
  return /ENOSPC|No space left|enough free space|Could not allocate block/i.test(text)
    ? new LabError(`${noSpace} ${purpose}; set ${variable} to another folder\n${text}`)
    : error
}
