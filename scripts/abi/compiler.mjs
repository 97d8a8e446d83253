// Asks the C compiler about a header: the names of its macros, their values, the argument types of its requests, and the layout of its structures.
// Types and values come from the compiler's debug information (BTF), so that no declaration is parsed here.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

// These make the compiler describe all types, used or not, and report an error at the line that expands a macro, not where the macro is defined.
const debugging = ['-gbtf', '-fno-eliminate-unused-debug-types', '-ftrack-macro-expansion=0', '-fno-diagnostics-show-caret', '-w']

/** Whether the programs that generating needs are here: gcc 12 or newer, which writes BTF, and bpftool, which reads it. */
export function programsAreHere() {
  const gcc = spawnSync('gcc', ['-gbtf', '-fsyntax-only', '-xc', '/dev/null'])
  return gcc.status === 0 && spawnSync('bpftool', ['version']).status === 0
}

/** The beginning of a translation unit: where it finds headers, and which headers it includes. */
export class Unit {
  #arguments
  #beginning

  /** @param beginning lines of C before the lines that are asked about */
  constructor(folders, beginning) {
    this.#arguments = ['-nostdinc', ...folders.flatMap((folder) => ['-I', folder])]
    this.#beginning = beginning
  }

  /** Returns the names of the macros without parameters, each with the tokens for which it stands, as the preprocessor prints them. */
  macros() {
    const list = (lines) => {
      const { status, stdout, stderr } = spawnSync('gcc', [...this.#arguments, '-E', '-dM', '-xc', '-'], {
        input: lines.join('\n'),
        encoding: 'utf8'
      })
      if (status !== 0) throw new Error(stderr)
      return stdout.split('\n').map((line) => line.slice('#define '.length))
    }
    const builtin = new Set(list([]))
    const own = list(this.#beginning).filter((line) => /^\w+ /.test(line) && !builtin.has(line))
    return new Map(own.map((line) => [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1).trim()]))
  }

  /** Returns the types that the compiler makes of the beginning and of those lines that it accepts. */
  types(lines = [], between = []) {
    const folder = mkdtempSync(join(tmpdir(), 'node-kvm-abi-'))
    try {
      const source = join(folder, 'probe.c')
      const before = [...this.#beginning, ...between]
      const compile = (kept) => {
        writeFileSync(source, [...before, ...kept, ''].join('\n'))
        return spawnSync('gcc', [...this.#arguments, ...debugging, '-c', source, '-o', `${source}.o`], { encoding: 'utf8' })
      }
      let { status, stderr } = compile(lines)
      if (status !== 0) {
        const refused = new Set([...stderr.matchAll(/probe\.c:(\d+):.* error: /g)].map(([, line]) => Number(line) - before.length - 1))
        ;({ status, stderr } = compile(lines.map((line, index) => (refused.has(index) ? '' : line))))
      }
      if (status !== 0) throw new Error(stderr)
      const dumped = spawnSync('bpftool', ['btf', 'dump', 'file', `${source}.o`, 'format', 'raw', '-j'], { encoding: 'utf8', maxBuffer: 2 ** 28 })
      if (dumped.status !== 0) throw new Error(dumped.stderr || dumped.stdout)
      return JSON.parse(dumped.stdout).types
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }

  /**
   * Returns those of the macros in `names` that are whole numbers. In this debug information an enumerator holds 32 bits, and in JSON bpftool rounds
   * it from 20 bits on, so each number is passed in quarters.
   * @returns names and values: a number, or a bigint if a number would round the value
   */
  values(names) {
    const parts = [0, 16, 32, 48]
    const lines = names.map((name) => {
      const quarters = parts.map((shift) => `bits${shift}_${name} = (int)((unsigned long long)(${name}) >> ${shift} & 0xffff)`)
      return `enum { negative_${name} = (${name}) < 0, ${quarters.join(', ')} };`
    })
    const found = new Map(this.types(lines).flatMap(({ kind, values }) => (kind === 'ENUM' ? values.map(({ name, val }) => [name, val]) : [])))
    const numberOf = (name) => {
      const value = parts.reduce((sum, shift) => sum | (BigInt(found.get(`bits${shift}_${name}`)) << BigInt(shift)), 0n)
      const signed = found.get(`negative_${name}`) ? BigInt.asIntN(64, value) : value
      return Number.isSafeInteger(Number(signed)) ? Number(signed) : signed
    }
    return new Map(names.filter((name) => found.has(`negative_${name}`)).map((name) => [name, numberOf(name)]))
  }

  /**
   * Returns those of the macros in `names` that are ioctl requests: they become types when _IOR and the like are defined as their argument's type.
   */
  argumentTypes(names) {
    const type = '#define _IOR(group, number, type) type'
    const between = ['_IO', '_IOR', '_IOW', '_IOWR'].flatMap((name) => [
      `#undef ${name}`,
      name === '_IO' ? '#define _IO(group, number) void' : type.replace('_IOR', name)
    ])
    const types = this.types(
      names.map((name) => `struct argument_of_${name} { ${name} *argument; };`),
      between
    )
    const pointees = new Map(types.filter(({ kind }) => kind === 'STRUCT').map(({ name, members }) => [name, members[0]]))
    const byId = new Map(types.map((each) => [each.id, each]))
    return new Map(
      names
        .filter((name) => pointees.has(`argument_of_${name}`))
        .map((name) => {
          const pointee = byId.get(byId.get(pointees.get(`argument_of_${name}`).type_id).type_id)
          return [name, pointee && { kind: pointee.kind, name: pointee.name }]
        })
    )
  }
}
