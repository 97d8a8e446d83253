// Native objects cannot be reached from the public API: neither by its declarations, nor by looking into its objects.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import { CpuidEntry, KiB, KvmError, Mapping, Registers, Segment, SpecialRegisters, type Vm } from 'node-kvm'
import { trace, translate } from 'node-kvm/observe'
import { Guest } from 'node-kvm/testing'
import { expect, test } from 'vitest'
import { type NativeKvm, type NativeRegion, type NativeVcpu, type NativeVm, native } from '../../lib/abi/native.js'
import { declared, doors, everything as everyExport } from '../support/doors.js'
import { checkedError } from '../support/errors.js'
import { kvm, vm } from '../support/vm.js'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** The declarations that a user's compiler reads. */
function declarations(): Map<string, string> {
  const found = new Map<string, string>()
  const read = (file: string) => {
    if (found.has(file)) return
    const text = readFileSync(file, 'utf8')
    found.set(file, text)
    for (const [, path] of text.matchAll(/(?:from |import\()['"](\.[^'"]+)\.js['"]/g)) read(resolve(dirname(file), `${path}.d.ts`))
  }
  for (const file of Object.values(declared)) read(file)
  return found
}

test('no public declaration knows of the add-on', () => {
  const all = declarations()
  expect(all.size).toBeGreaterThan(30)
  expect([...all.keys()].filter((file) => /abi\/(native|internal|vcpu-calls)\.d\.ts$/.test(file))).toEqual([])
  for (const [file, text] of all) expect(text.match(/\bNative[A-Z]\w*/)?.[0], file).toBeUndefined()
})

test('each door of the package is walked, and each name is exported by one of them', () => {
  expect(Object.keys(doors).sort()).toEqual(Object.keys(declared).sort())
  const names = Object.values(doors).flatMap((door) => Object.keys(door))
  expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([])
})

test('no path into the package leads to the add-on', () => {
  const program = "import('node-kvm/dist/lib/abi/native.js').then(() => console.log('there'), ({ code }) => console.log(code))"
  const told = execFileSync(process.execPath, ['--input-type=module', '-e', program], { cwd: root, encoding: 'utf8' })
  expect(told.trim()).toBe('ERR_PACKAGE_PATH_NOT_EXPORTED')
})

/** Everything that the add-on makes and exports: classes by their prototypes, and functions. */
function nativeThings(): Set<unknown> {
  const system = native.open('/dev/kvm', true) as NativeKvm
  const machine = system.createVm(0) as NativeVm
  const vcpu = machine.createVcpu(0) as NativeVcpu
  const region = native.map({ kind: 'anonymous', size: 4096 }) as NativeRegion
  const runner = vcpu.startThread(0, [], () => {})
  const faults = region.serveFaults({ minor: false })
  const tracer = native.trace({ events: [], processes: [], children: false, ringSize: 4096, heldLimit: 4096 })
  const others = [native.eventfd(), native.watchEventfds(), region.recordWrites(), runner, faults, tracer].filter((made) => typeof made === 'object')
  const prototypes = [system, machine, vcpu, region, ...others].map((object) => Object.getPrototypeOf(object) as object)
  expect(new Set(prototypes).size).toBeGreaterThanOrEqual(7)
  const methods = prototypes.flatMap((prototype) =>
    Object.values(Object.getOwnPropertyDescriptors(prototype)).flatMap(({ value, get }) => value ?? get)
  )
  if (typeof runner === 'object') runner.end()
  for (const descriptor of [vcpu, machine, system]) descriptor.close()
  return new Set<unknown>([native, ...prototypes, ...methods, ...Object.values(native), machine.memslotWords])
}

/** An object of each public class, as a program has them, and the objects that lead to them. */
function everything(machine: Vm): object[] {
  machine.interrupts.createIrqchip()
  const mapping = Mapping.anonymous(64 * KiB)
  const slot = machine.memslots.create({ gpa: 0, mapping })
  const guest = Guest.create(machine)
  let transaction: object = {}
  machine.memslots.transaction((given) => {
    transaction = given
    given.move(slot, 0x10_0000)
  })
  return [
    ...Object.values(everyExport).filter((value) => typeof value === 'function' || typeof value === 'object'),
    kvm,
    machine,
    machine.memslots,
    mapping,
    slot,
    guest,
    transaction,
    machine.stats,
    guest.vcpu.stats,
    machine.interrupts.irqfd({ gsi: 5, resample: true }),
    machine.ioeventfd({ gpa: 0xd000_0000 }),
    machine.coalesce({ gpa: 0xd100_0000, size: 8 }, () => {}),
    machine.dirtyLog(),
    mapping.buffer,
    ...privileged([
      () => Mapping.anonymous(64 * KiB).onMissing(() => null),
      () => trace(machine, { kinds: ['memslot'] }),
      () => translate(machine, 0)
    ])
  ]
}

/** The objects that can be made here: not every process may serve faults or trace. */
function privileged(makers: readonly (() => object)[]): object[] {
  return makers.flatMap((make) => {
    try {
      return [make()]
    } catch (error) {
      expect((error as KvmError).code).toMatch(/permission|unavailable/)
      return []
    }
  })
}

/** Everything that can be reached: own properties by name and by symbol, those of prototypes, the results of getters, and the getters themselves. */
function reachable(from: readonly unknown[]): Set<unknown> {
  const seen = new Set<unknown>()
  const waiting: unknown[] = [...from]
  const look = (value: unknown) => {
    if (((typeof value === 'object' && value !== null) || typeof value === 'function') && !seen.has(value)) waiting.push(value)
  }
  while (waiting.length > 0) {
    const object = waiting.pop() as object
    if (seen.has(object) || object === globalThis || object === process) continue
    seen.add(object)
    if (ArrayBuffer.isView(object)) {
      look(object.buffer)
      look(Object.getPrototypeOf(object))
      continue
    }
    for (let holder: object | null = object; holder !== null; holder = Object.getPrototypeOf(holder) as object | null) {
      look(holder)
      for (const key of Reflect.ownKeys(holder)) {
        const { value, get, set } = Object.getOwnPropertyDescriptor(holder, key) as PropertyDescriptor
        for (const one of [value, get, set]) look(one)
        try {
          if (get) look(Reflect.get(holder, key, object))
        } catch {
          // The getter refused, because its object is another one, or closed.
        }
      }
    }
  }
  return seen
}

test('no way from a public object leads to an object or a function of the add-on', () => {
  const forbidden = nativeThings()
  const all = everything(vm)
  // The search finds a native object that is there.
  expect(reachable([{ deep: [() => {}, { [Symbol('x')]: native }] }]).has(native)).toBe(true)
  const found = reachable(all)
  expect(found.size).toBeGreaterThan(500)
  expect(found.has(vm.vcpus)).toBe(true)
  const leaks = [...found].filter(
    (value) => forbidden.has(value) || forbidden.has(Object.getPrototypeOf(value)) || (typeof value === 'function' && forbidden.has(value.prototype))
  )
  expect(leaks).toEqual([])
  for (const object of all) expect(inspect(object, { showHidden: true, depth: 8 })).not.toContain('[External')
})

test('a clone of a public object has nothing of the add-on', () => {
  const forbidden = nativeThings()
  const clones = everything(vm).flatMap((object) => {
    try {
      return [structuredClone(object) as unknown]
    } catch {
      return []
    }
  })
  expect(clones.length).toBeGreaterThan(5)
  expect([...reachable(clones)].filter((value) => forbidden.has(value) || forbidden.has(Object.getPrototypeOf(value)))).toEqual([])
})

/** The classes from which a program may make objects by new: values, with nothing behind them. */
const values: readonly unknown[] = [KvmError, Registers, SpecialRegisters, CpuidEntry, Segment]

test('what holds native state is made by the library alone, and says by whom', () => {
  const classes = new Set<new (...given: unknown[]) => object>()
  for (const object of [...everything(vm), guestVcpu()])
    for (const one of [object, object.constructor] as { prototype?: object }[])
      if (typeof one === 'function' && /^class /.test(String(one)) && !values.includes(one)) classes.add(one as new () => object)
  expect(classes.size).toBeGreaterThanOrEqual(18)
  for (const one of classes) {
    class Derived extends one {}
    for (const given of [[], [undefined, vm], [Symbol('node-kvm'), {}, {}, {}]])
      for (const make of [() => new one(...given), () => new Derived(...given)])
        expect(checkedError(make, 'argument').message, one.name).toMatch(/is not made by new: .+ makes it$/)
  }
})

test('a class that is given another parent does not tell that one what is private', () => {
  vm.interrupts.createIrqchip()
  const told: unknown[] = []
  class Stranger {
    constructor(...given: unknown[]) {
      told.push(...given)
    }
  }
  const makers = [() => vm.createVcpu(), () => vm.interrupts.irqfd({ gsi: 5 }), () => vm.ioeventfd({ gpa: 0xd000_0000 })]
  for (const make of makers) {
    const type = make().constructor
    if (type === vm.vcpus.get(0)?.constructor) for (const vcpu of vm.vcpus.values()) vcpu.close()
    const parent = Object.getPrototypeOf(type) as object
    try {
      Reflect.setPrototypeOf(type, Stranger)
      make()
    } catch {
      // Such a parent does not make objects of the class.
    } finally {
      Reflect.setPrototypeOf(type, parent)
    }
  }
  expect(told).toEqual([])
})

const guestVcpu = () => [...vm.vcpus.values()][0] as object
