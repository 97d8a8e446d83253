/** For command lines that ask for no lane: asking for one all the same is a fault. */
export const noLane = (lane: string): never => {
  throw new Error(`this command line asks for no lane, but ${lane} was to run it`)
}
