/** What must not outlive this process: removed when it ends, whichever way it ends, save by SIGKILL. */
type Undo = () => void

const undos = new Set<Undo>()
const signals = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 } as const
let watching = false

function undoAll(): void {
  // The last first: an emulator before the folder that it writes to.
  for (const undo of [...undos].reverse()) {
    try {
      undo()
    } catch {
      // The others still have their turn.
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

/** Has `undo` run at the end of the process; what comes back runs it now instead. */
export function undoAtExit(undo: Undo): Undo {
  watch()
  undos.add(undo)
  return () => {
    if (undos.delete(undo)) undo()
  }
}
