/** Programs as data: they are generated, kept as JSON, shrunk, and turned into the text that runs. */

/** The kinds of objects that commands make and use. */
export type Kind =
  | 'kvm'
  | 'vm'
  | 'vcpu'
  | 'mapping'
  | 'huge'
  | 'slot'
  | 'transaction'
  | 'paging'
  | 'log'
  | 'irqfd'
  | 'ioeventfd'
  | 'zone'
  | 'statistics'
  | 'trace'
  | 'mirror'
  | 'tables'
  | 'guest'
  | 'memfd'
  | 'token'
  | 'registers'
  | 'crew'

/** Source text, in which `@vm:3` stands for one of the VMs made before, and a list of commands for the body of a callback. */
export type Text = readonly (string | readonly Command[])[]

/** The resource that is scarce while a call is made. */
export type Fault =
  | { lack: 'descriptors'; free: number }
  | { lack: 'threads' }
  | { lack: 'address-space'; bytes: number }
  | { lack: 'file-size'; bytes: number }
  | { lack: 'call'; name: string; nth: number; errno: string }

export interface Command {
  /** An expression; or, if `how` is awaited or plain, a statement that uses the program's own helpers. */
  text: Text
  /** `call`: one call of the library. `other`: the same on an object of another kind. `plain`, `awaited`: calls of the helpers. */
  how: 'call' | 'other' | 'plain' | 'awaited'
  makes?: Kind
  fault?: Fault
  /** Text before and behind the attempt, which judges it. */
  around?: readonly [string, string]
  /** Whether the text is an order to a Worker. */
  worker?: boolean
}

const closable: readonly Kind[] = [
  'kvm',
  'vm',
  'vcpu',
  'mapping',
  'huge',
  'paging',
  'log',
  'irqfd',
  'ioeventfd',
  'zone',
  'statistics',
  'trace',
  'mirror',
  'memfd',
  'token'
]

/** The names that a program, or a Worker in it, has for the objects that it made. */
class Scope {
  readonly names = new Map<Kind, string[]>()
  readonly workers = new Map<string, Scope>()

  declare(kind: Kind): string {
    const known = this.names.get(kind) ?? []
    const name = `${kind}${known.length}`
    this.names.set(kind, [...known, name])
    return name
  }
  /** The name of one object of a kind: the `last` one, or one by a number, which wraps around. */
  pick(kind: Kind, index: string): string | undefined {
    const known = this.names.get(kind) ?? []
    return index === 'last' ? known.at(-1) : known[Number(index) % known.length]
  }
  all(...kinds: Kind[]): string[] {
    return kinds.flatMap((kind) => this.names.get(kind) ?? [])
  }
  /** The names in the Worker of that name, which has its VM from the start. */
  of(worker: string): Scope {
    const known = this.workers.get(worker)
    if (known) return known
    const scope = new Scope()
    scope.names.set('vm', ['own'])
    this.workers.set(worker, scope)
    return scope
  }
}

const indent = (lines: readonly string[]) => lines.map((line) => `  ${line.replaceAll('\n', '\n  ')}`)

/**
 * Replaces `@vm:3` by the name of a VM that was made before, and `@new:vm` by the name of one that is made here. Also returns which names are used,
 * and whether one is missing.
 */
function named(text: string, scope: Scope): { text: string; used: string[]; lacks: boolean } {
  const found = { text: '', used: [] as string[], lacks: false }
  found.text = text.replace(/@(\w+):(\w+)/g, (_, kind: string, index: string) => {
    if (kind === 'new') return scope.declare(index as Kind)
    const name = scope.pick(kind as Kind, index)
    if (name === undefined) found.lacks = true
    else found.used.push(name)
    return name ?? 'undefined'
  })
  return found
}

function joined(text: Text, scope: Scope, used: Set<string>): string | undefined {
  const pieces = text.map((piece) => {
    if (typeof piece !== 'string') return piece.length === 0 ? ' ' : `\n${indent(linesOf(piece, scope)).join('\n')}\n`
    const found = named(piece, scope)
    for (const name of found.used) used.add(name)
    return found.lacks ? undefined : found.text
  })
  return pieces.includes(undefined) ? undefined : pieces.join('')
}

function underFault(fault: Fault | undefined, attempt: string): string {
  switch (fault?.lack) {
    case 'descriptors':
      return `withDescriptors(${fault.free}, () => ${attempt})`
    case 'threads':
      return `withoutThreads(() => ${attempt})`
    case 'address-space':
      return `withAddressSpace(${fault.bytes}, () => ${attempt})`
    case 'file-size':
      return `withFileSize(${fault.bytes}, () => ${attempt})`
    case 'call':
      return `withFailing('${fault.name}', ${fault.nth}, '${fault.errno}', () => ${attempt})`
    case undefined:
      return attempt
  }
}

function lineOf(command: Command, scope: Scope): string | undefined {
  const used = new Set<string>()
  if (command.worker) return orderOf(command, scope)
  // This comes before the callbacks make other objects: the text around is about the objects that exist now.
  const [before, after] = (command.around ?? ['', '']).map((part) => named(part, scope).text) as [string, string]
  const text = joined(command.text, scope, used)
  if (text === undefined) return undefined
  if (command.how === 'plain' || command.how === 'awaited') {
    const given = command.makes ? `${scope.declare(command.makes)} = ` : ''
    return `${given}${command.how === 'awaited' ? 'await ' : ''}${text}`
  }
  const needs = [...used].map((name) => `, ${name}`).join('')
  const attempt = `${command.how === 'other' ? 'attemptOnOther' : 'attempt'}(() => ${text}${needs})`
  const made = underFault(command.fault, attempt)
  const call = `${before}${command.makes === 'paging' ? `keep(${made})` : made}${after}`
  return command.makes ? `${scope.declare(command.makes)} = ${call}` : call
}

/** An order to a Worker: a script whose variables remain for the next order. */
function orderOf({ text, how }: Command, scope: Scope): string | undefined {
  const [head, body, tail] = text as [string, readonly Command[], string]
  const { text: start, used } = named(head, scope)
  const [crew] = used
  if (crew === undefined) return undefined
  const inner = scope.of(crew)
  const lines = linesOf(body, inner).map((line) => `${line}; step()`)
  const variables = [...inner.names.values()].flat().filter((name) => name !== 'own')
  const order = [...(variables.length > 0 ? [`var ${variables.join(', ')}`] : []), '(async () => {', ...indent(lines), '})()'].join('\n')
  const quoted = /[`\\$]/.test(order) ? JSON.stringify(order) : `\`${order}\``
  return `${how === 'awaited' ? 'await ' : ''}${start}${quoted}${tail}`
}

function linesOf(commands: readonly Command[], scope: Scope): string[] {
  return commands.flatMap((command) => lineOf(command, scope) ?? [])
}

/** The text of a program: the body of an async function that runs all commands and then judges what they left. */
export function programOf(commands: readonly Command[]): string {
  const scope = new Scope()
  const lines = linesOf(commands, scope)
  const variables = [...scope.names.values()].flat()
  const list = (...kinds: Kind[]) => `[${scope.all(...kinds).join(', ')}]`
  return [
    ...(variables.length > 0 ? [`let ${variables.join(', ')}`] : []),
    ...lines,
    `await judge(${list('vm')}, ${list('crew')}, ${list(...closable)})`
  ].join('\n')
}
