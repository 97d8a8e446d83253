/** Workers whose steps the main thread orders. */
import { setTimeout as later } from 'node:timers/promises'
import { runInThisContext } from 'node:vm'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { attempt, journal, judgeError, progress } from './attempt.js'
import { type Library, Vm } from './library.js'

/** A Worker that follows orders. The shared words say at which step it is, and how many orders it carried out. */
export interface Crew {
  worker: Worker
  words: Int32Array
  ordered: number
  /**
   * Set once the Worker ended or did not answer in time: if every order waited again, a handler that gives orders would take the program's whole
   * time.
   */
  isDeaf: boolean
}

/** Ends a Worker, unless it has ended already. */
export async function end(crew: Crew | undefined): Promise<void> {
  if (!crew) return
  progress()
  crew.isDeaf = true
  await crew.worker.terminate()
}

/** Starts a Worker with the same VM. */
export async function startWorker(vm: Library.Vm | undefined, file: URL): Promise<Crew | undefined> {
  const token = attempt(() => vm?.share(), vm)
  if (token === undefined) return undefined
  const words = new Int32Array(new SharedArrayBuffer(16))
  const worker = new Worker(file, { workerData: { token, words } })
  // Node itself may lack what it needs to start, for example a descriptor.
  worker.once('message', () => worker.on('error', (error) => judgeError(error, 'in a Worker')))
  worker.on('error', () => {})
  const crew = { worker, words, ordered: 0, isDeaf: false }
  await Promise.race([new Promise((resolve) => worker.once('message', resolve)), later(5000, undefined, { ref: false })])
  return crew
}

/** Gives a Worker an order, and blocks this thread until the order is done; but not for ever, as the Worker may wait for this thread. */
export function tell(crew: Crew | undefined, text: string, waits = true): void {
  if (!crew) return
  const before = Atomics.load(crew.words, 1)
  crew.worker.postMessage(text)
  crew.ordered++
  if (waits && !crew.isDeaf) crew.isDeaf = Atomics.wait(crew.words, 1, before, 1000) === 'timed-out'
}

/** Gives a Worker an order, and ends it once it is at that step. */
export async function endAt(crew: Crew | undefined, text: string, step: number): Promise<void> {
  if (!crew) return
  const reached = Atomics.load(crew.words, 0) + step
  tell(crew, text, false)
  for (let tries = 0; tries < 20 && Atomics.load(crew.words, 0) < reached && Atomics.load(crew.words, 1) < crew.ordered; tries++)
    Atomics.wait(crew.words, 0, Atomics.load(crew.words, 0), 5)
  await end(crew)
}

/** A Worker calls this between its calls. */
export function step(): void {
  const words = (workerData as { words?: Int32Array } | null)?.words
  if (isMainThread || !words) return
  Atomics.add(words, 0, 1)
  Atomics.notify(words, 0)
}

/** Lets other Workers come and go, so that the stacks and thread-local memory of ended ones are reused. */
export async function crowd(count: number): Promise<void> {
  const others = Array.from({ length: count }, () => new Worker('', { eval: true }))
  await Promise.all(others.map((other) => new Promise((resolve) => other.once('exit', resolve))))
  progress()
}

/** Runs in a Worker and carries out orders, whose text may use `names`. */
export function serve(names: Readonly<Record<string, unknown>>): void {
  const { token, words } = workerData as { token: Parameters<typeof Vm.attach>[0]; words: Int32Array }
  const own = attempt(() => Vm.attach(token))
  Object.assign(globalThis, names, { own })
  process.on('uncaughtException', (error) => judgeError(error, 'thrown later in a Worker'))
  parentPort?.on('message', async (text: string) => {
    try {
      // The text runs in the global scope, so that the next order finds the variables again.
      await runInThisContext(text)
    } finally {
      Atomics.add(words, 1, 1)
      Atomics.notify(words, 1)
    }
  })
  parentPort?.postMessage(journal().calls)
}
