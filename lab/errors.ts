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
