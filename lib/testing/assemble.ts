/** Runs GNU as for examples and tests. Every machine that builds native add-ons has it. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { argumentError, checkInteger, checkOneOf, checkOptions, hex } from '../abi/arguments.js'
import { exhaustion, KvmError } from '../abi/errors.js'
import { opening } from '../abi/exhausted.js'
import type { Mode } from '../kvm/vcpu/modes.js'

/** Options for {@link assemble}. */
export interface AssembleOptions {
  /** The processor mode in which the code will run. */
  mode: Mode
  /** The address at which the code will be; labels count from there. */
  at: number
}

const dialects = {
  real: { code: '.code16', as: '--32', ld: 'elf_i386' },
  protected: { code: '.code32', as: '--32', ld: 'elf_i386' },
  long: { code: '.code64', as: '--64', ld: 'elf_x86_64' }
} as const

function runTool(tool: 'as' | 'ld', args: string[]): void {
  const { error, status, stderr } = spawnSync(tool, args, { encoding: 'utf8' })
  const { code = 'EIO' } = (error ?? {}) as NodeJS.ErrnoException
  if (error)
    throw (
      exhaustion(`running ${tool}`, code === 'EAGAIN' ? 'threads' : code) ??
      new KvmError('unavailable', `running ${tool}: ${code}${code === 'ENOENT' ? '; install GNU binutils (apt-get install binutils)' : ''}`, {
        tool
      })
    )
  // The messages name a temporary file. Only the line and the text are useful to the caller.
  if (status !== 0) throw new KvmError('assembler', `${tool} refused the source:\n${stderr.replace(/^.*source\.s: ?/gm, '').trim()}`, { tool })
}

/**
 * Makes machine code from AT&T assembler. Statements end with `;` or a new line.
 * @throws KvmError `assembler` with the message of as, or `unavailable` without binutils
 * @example
 * assemble(`mov $0x3f8, %dx; mov $'H', %al; out %al, %dx; hlt`, { mode: 'real', at: 0x1000 })
 */
export function assemble(source: string, options: AssembleOptions): Uint8Array {
  if (typeof source !== 'string') throw argumentError('source', source, 'a string')
  const { mode, at } = checkOptions('options', options, ['mode', 'at'])
  const dialect = dialects[checkOneOf('mode', mode, ['real', 'protected', 'long'])]
  checkInteger('at', at)
  const folder = opening('making a temporary folder for the assembler', () => mkdtempSync(join(tmpdir(), 'node-kvm-as-')))
  const path = (name: string) => join(folder, name)
  try {
    // The added text and the source begin on one line, so that the assembler counts lines as the caller does.
    opening('writing the source for the assembler', () => writeFileSync(path('source.s'), `${dialect.code}; .global _start; _start: ${source}\n`))
    runTool('as', [dialect.as, '-o', path('object.o'), path('source.s')])
    runTool('ld', ['-m', dialect.ld, '--oformat', 'binary', '-Ttext', hex(at), '-o', path('code'), path('object.o')])
    return new Uint8Array(opening('reading what the assembler made', () => readFileSync(path('code'))))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
