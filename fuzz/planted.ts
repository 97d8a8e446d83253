/** Plants faults that the library does not have, for the test that the fuzzer would find them. */
import { Kvm, type Library, Mapping, Memslot } from './program/library.js'

const faults: Record<string, () => void> = {
  untyped() {
    Mapping.prototype.fill = () => (undefined as unknown as Library.Mapping).fill(1)
  },
  hang() {
    Mapping.prototype.fill = () => {
      for (;;);
    }
  },
  sleep() {
    Mapping.prototype.fill = () => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
  },
  crash() {
    Mapping.prototype.fill = () => process.abort()
  },
  promise() {
    Mapping.prototype.fill = () => new Promise(() => {}) as unknown as undefined
  },
  wrong() {
    Object.defineProperty(Memslot.prototype, 'hva', { get: () => 0x5000 })
  },
  leak() {
    const kept: Library.Kvm[] = []
    const { createVm } = Kvm.prototype
    Kvm.prototype.createVm = function (...given) {
      kept.push(Kvm.open())
      return createVm.apply(this, given)
    }
  }
}

export function plant(name: string | undefined): void {
  if (name === undefined) return
  const fault = faults[name]
  if (!fault) throw new Error(`NODE_KVM_FUZZ_PLANT must be one of ${Object.keys(faults).join(', ')}`)
  fault()
}
