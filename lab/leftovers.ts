/** Things that must not outlive this process. They are removed when it ends in any way but SIGKILL. */
type Undo = () => void

const undos = new Set<Undo>()
const signals = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 } as const
let watching = false

function undoAll(): void {
  // The last comes first: an emulator before the folder to which it writes.
  for (const undo of [...undos].reverse()) {
    try {
      undo()
    } catch {
      // A failure does not stop the others.
    }
  }
  undos.clear()
}

function watch(): void {
  if (watching) return
  watching = true
  process.on('exit', undoAll)
  for (const [name, number] of Object.entries(signals)) process.on(name, () => process.exit(128 + number))
}

/** Makes `undo` run at the end of the process; the function that this returns runs it now instead. */
export function undoAtExit(undo: Undo): Undo {
  watch()
  undos.add(undo)
  return () => {
    if (undos.delete(undo)) undo()
  }
}
