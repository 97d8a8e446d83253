/** Events as objects. Events that come as samples decode their costly parts only when somebody reads them. */
import { inspect } from 'node:util'
import { hex } from '../../abi/arguments.js'
import { decodeEptQualification, decodeNestedPageFault, type EptQualification, type NestedPageFault } from '../../x86/qualification.js'
import { decodeSpte, type Spte, type SpteFormat } from '../../x86/spte.js'
import { describeEvent } from './describe.js'
import type { TraceEvent } from './events.js'
import { type Format, rawFields, wideField } from './format.js'
import { cpuOf, dataOf, processOf, sizeOf, threadOf } from './records.js'

/** A value for JSON: 64-bit values become hexadecimal text, a cause its kind and time. */
function plain(name: string, value: unknown): unknown {
  if (name === 'cause') return { kind: (value as TraceEvent).kind, time: (value as TraceEvent).time }
  if (typeof value === 'bigint') return hex(value)
  if (Array.isArray(value)) return value.map((part) => plain('', part))
  if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, plain(key, part)]))
  return value
}

/** The methods that all events have. */
export class PrintableEvent {
  /** Returns one line: `+0.003 spte gfn 0xa level 1: rwx hpa 0x1c000 -> none`. */
  toString(): string {
    const event = this as unknown as TraceEvent
    return `+${event.elapsed.toFixed(3)} ${describeEvent(event)}`
  }

  /** The names of the fields that are decoded each time they are read. */
  protected get lazy(): readonly string[] {
    return []
  }

  #fields(): [string, unknown][] {
    const lazy = this.lazy.map((name): [string, unknown] => [name, (this as Record<string, unknown>)[name]])
    const { kind, time, ...rest } = Object.fromEntries([...lazy, ...Object.entries(this)])
    return Object.entries({ kind, time, ...rest }).filter(([, value]) => value !== undefined)
  }

  toJSON(): Record<string, unknown> {
    return Object.fromEntries(this.#fields().map(([name, value]) => [name, plain(name, value)]))
  }

  [inspect.custom](): Record<string, unknown> {
    return Object.fromEntries(this.#fields().map(([name, value]) => [name, name === 'cause' ? String(value) : value]))
  }
}

/** The data that all samples of one tracepoint share. */
export interface Origin {
  format: Format
  spteFormat: SpteFormat
  /** The time at which the trace began, in nanoseconds. */
  start: number
}

/**
 * An event that came as a sample. There may be a million per second, so the object holds little: fields that most programs never read are decoded
 * from the record on demand.
 */
export class Recorded extends PrintableEvent {
  readonly time: number
  readonly #origin: Origin
  #view: DataView
  #at: number

  constructor(origin: Origin, view: DataView, at: number, time: number) {
    super()
    this.time = time
    this.#origin = origin
    this.#view = view
    this.#at = at
  }

  /** Copies the record, so that an event that is kept does not keep everything that was drained with it. */
  detach(): void {
    const { buffer, byteOffset } = this.#view
    const start = byteOffset + this.#at
    this.#view = new DataView(buffer.slice(start, start + sizeOf(this.#view, this.#at)))
    this.#at = 0
  }

  get elapsed(): number {
    return (this.time - this.#origin.start) / 1e6
  }
  get process(): number {
    return processOf(this.#view, this.#at)
  }
  get thread(): number {
    return threadOf(this.#view, this.#at)
  }
  get cpu(): number {
    return cpuOf(this.#view, this.#at)
  }
  get raw(): Record<string, number | bigint> {
    return rawFields(this.#origin.format, this.#view, dataOf(this.#at))
  }
  protected get spteFormat(): SpteFormat {
    return this.#origin.spteFormat
  }
  /** Returns a field of 64 bits, or 0 if the tracepoint has no field of that name. */
  protected wide(name: string): bigint {
    return wideField(this.#origin.format, name)(this.#view, dataOf(this.#at))
  }
  protected override get lazy(): readonly string[] {
    return ['elapsed', 'process', 'thread', 'cpu']
  }
}

/** An event of kind `spte-set`. */
export class RecordedSet extends Recorded {
  declare level: number
  get spte(): bigint {
    return this.wide('spte')
  }
  get decoded(): Spte {
    return decodeSpte(this.spteFormat, this.spte, this.level)
  }
  protected override get lazy() {
    return [...super.lazy, 'spte', 'decoded']
  }
}

/** An event of kind `spte-change`. */
export class RecordedChange extends Recorded {
  declare level: number
  #wasPresent = false
  #isPresent = false
  get old(): bigint {
    return this.wide('old_spte')
  }
  get new(): bigint {
    return this.wide('new_spte')
  }
  get before(): Spte {
    return decodeSpte(this.spteFormat, this.old, this.level)
  }
  get after(): Spte {
    return decodeSpte(this.spteFormat, this.new, this.level)
  }
  /** Whether the entry was present before the change. This and `isPresent` save the cost of decoding the entry. */
  get wasPresent(): boolean {
    return this.#wasPresent
  }
  get isPresent(): boolean {
    return this.#isPresent
  }
  setPresence(was: boolean, is: boolean): void {
    this.#wasPresent = was
    this.#isPresent = is
  }
  protected override get lazy() {
    return [...super.lazy, 'old', 'new', 'before', 'after']
  }
}

/** An event of kind `violation`, or of kind `guest-fault`, which has no qualification. */
export class RecordedFault extends Recorded {
  declare kind: 'violation' | 'guest-fault'
  get qualification(): EptQualification | NestedPageFault | undefined {
    if (this.kind !== 'violation') return undefined
    const code = this.wide('error_code')
    return this.spteFormat === 'ept' ? decodeEptQualification(code) : decodeNestedPageFault(code)
  }
  protected override get lazy() {
    return [...super.lazy, 'qualification']
  }
}

/** An event of kind `raw`, for a tracepoint that was asked for by name. */
export class RecordedRaw extends Recorded {
  protected override get lazy() {
    return [...super.lazy, 'raw']
  }
}
