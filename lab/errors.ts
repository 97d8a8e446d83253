/** What went wrong in the lab, with the exit status that says it. */

/** 125 as env and docker have it: the lab itself failed, not the command in it. 124 as timeout has it. */
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

/** The error, or where it came of a full disk one that says so; `variable` names another folder. */
export function explained(error: unknown, purpose: string, variable: string): unknown {
  const text = String((error as Error).message)
  if (text.startsWith(noSpace)) return error
  return /ENOSPC|No space left|enough free space|Could not allocate block/i.test(text)
    ? new LabError(`${noSpace} ${purpose}; ${variable} names another folder\n${text}`)
    : error
}
