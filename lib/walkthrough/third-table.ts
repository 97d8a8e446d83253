/** The third table of this process's VM by the means that this host allows: BPF reads it, or else trace events keep a mirror of it. */
import type { Gpa } from '../abi/addresses.js'
import { KvmError } from '../abi/errors.js'
import type { Vm } from '../kvm/vm/vm.js'
import { mirror, translate } from '../observe/observed.js'
import type { Mirror } from '../observe/tables/mirror.js'
import type { Translation } from '../observe/tables/translate.js'

export class ThirdTable implements Disposable {
  /** Why the table is not shown, or why it is mirrored and not read. */
  readonly note: string | undefined
  readonly #vm: Vm
  readonly #mirror: Mirror | undefined

  /** Make this object before the guest runs: a mirror knows only the changes since it began. */
  constructor(vm: Vm) {
    this.#vm = vm
    const [missing] = translate(vm, 0).evidence.missing.filter((text) => text.startsWith('the second stage'))
    if (missing === undefined) return
    try {
      this.#mirror = mirror(vm)
      this.note = `the third table is mirrored from trace events: ${missing}`
    } catch (error) {
      if (!(error instanceof KvmError)) throw error
      this.note = `the third table is not shown: ${missing}; nor mirrored: ${error.message}`
    }
  }

  get shown(): boolean {
    return this.note === undefined || this.#mirror !== undefined
  }

  /** Translates a GPA now. */
  at(gpa: Gpa): Translation {
    return translate(this.#mirror ?? this.#vm, gpa)
  }

  [Symbol.dispose](): void {
    this.#mirror?.close()
  }
}
