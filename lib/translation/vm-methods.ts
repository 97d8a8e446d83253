/**
 * translate() and tables() as methods of a VM. The room kvm knows nothing of this one: the methods are put on the class when the library is
 * loaded.
 */
import { Vm } from '../kvm/vm.js'
import { type Tables, tables } from './tables.js'
import { type Translation, translate } from './translate.js'

declare module '../kvm/vm.js' {
  interface Vm {
    /** {@link translate} */
    translate(gpa: number): Translation
    /** {@link tables} */
    tables(range?: { gpa?: number; size?: number }): Tables
  }
}

Vm.prototype.translate = function (gpa) {
  return translate(this, gpa)
}
Vm.prototype.tables = function (range) {
  return tables(this, range)
}
