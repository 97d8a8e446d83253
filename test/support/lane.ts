/** For command lines that need no lane: if one asks for a lane all the same, that is a fault. */
export const noLane = (lane: string): never => {
  throw new Error(`this command line needs no lane, but asked for ${lane}`)
}
