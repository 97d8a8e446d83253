// Every request of the generated table, on every kind of descriptor, with buffers of every size about the right one: refused by the add-on by its
// size or its name, or answered by the kernel, and not a byte beyond the buffer changed. Prints what did not hold; whether it survives is for
// its caller to see.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import * as everyRequest from '../../dist/lib/abi/generated/requests.js'
import * as everyStructure from '../../dist/lib/abi/generated/structures.js'

const require = createRequire(import.meta.url)
const root = fileURLToPath(new URL('../..', import.meta.url))
const addon = process.env.NODE_KVM_ADDON ? require(process.env.NODE_KVM_ADDON) : require('node-gyp-build')(root)
const requests = { ...everyRequest }
const structures = { ...everyStructure }
const all = Object.values(requests)
const [EINVAL, E2BIG, EOPNOTSUPP] = [-22, -7, -95]

/** The allow-list, as the add-on's source has it: names, and of those that are counted the bytes of one entry. */
function allowed() {
  const source = readFileSync(new URL('../../native/core/requests.h', import.meta.url), 'utf8')
  const plain = new Set()
  const entries = new Map()
  const sizes = { uint32_t: 4, 1: 1 }
  for (const [, cases, kind, entry] of source.matchAll(/((?:\s*case \w+:)+)\s*return \{RequestLayout::(\w+)(?:, (?:sizeof\()?(\w+)\)?)?\}/g))
    for (const [, name] of cases.matchAll(/case (\w+):/g))
      if (kind === 'kPlain') plain.add(requests[name].number)
      else entries.set(requests[name].number, sizes[entry] ?? structures[entry].size)
  return { plain, entries }
}
const { plain, entries } = allowed()

const guard = 256
const fills = [0, 1, 0xff, 'random']
let seed = Number(process.argv[2] ?? 1)
const random = () => {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
  return seed >>> 24
}
/** Bytes between others, which nothing is to touch; `count` in front of what follows. */
function guarded(size, fill, count) {
  const whole = new Uint8Array(guard + size + guard).map(() => (fill === 'random' ? random() : fill))
  const bytes = whole.subarray(guard, guard + size)
  if (count !== undefined && size >= 4) new DataView(bytes.buffer, guard).setUint32(0, count, true)
  const before = whole.slice()
  /** @param end behind it nothing may change */
  const isKept = (end) =>
    Buffer.compare(whole.subarray(0, guard), before.subarray(0, guard)) === 0 &&
    Buffer.compare(whole.subarray(guard + end), before.subarray(guard + end)) === 0
  return { bytes, isKept }
}

const violations = []
const counts = { calls: 0, bySize: 0, notListed: 0, byKernel: 0, done: 0 }
function judge(where, result, expected) {
  counts.calls++
  if (!Number.isInteger(result) || result < -4095) violations.push(`${where}: ${result}`)
  if (expected !== undefined && result !== expected) violations.push(`${where}: ${result} and not ${expected}`)
  if (result === E2BIG && expected === E2BIG) counts.bySize++
  else if (result === EOPNOTSUPP) counts.notListed++
  else if (result < 0) counts.byKernel++
  else counts.done++
}

function tryPlain(name, send, { name: request, number, size }) {
  const where = `${name} ${request}`
  if (!plain.has(number)) {
    for (const argument of [undefined, 0, 5, new Uint8Array(0), new Uint8Array(size), new Uint8Array(size + 4096)])
      judge(`${where}, ioctl()`, send(number, argument), EOPNOTSUPP)
    return
  }
  if (size === 0) {
    for (const argument of [undefined, 0, 1, 0x10, 2 ** 31, 2 ** 32 - 1]) judge(where, send(number, argument))
    for (const argument of [-1, 0.5, Number.NaN, 2 ** 64, '1', 1n, null, {}, new Uint8Array(8)])
      judge(`${where}, of ${typeof argument}`, send(number, argument), EINVAL)
    return
  }
  for (const argument of [undefined, 0, 5, 2 ** 47, null, {}, 'x', 1n]) judge(`${where}, of ${typeof argument}`, send(number, argument), EINVAL)
  for (const fill of fills) {
    for (const length of [0, 1, size - 1].filter((length) => length < size)) {
      const { bytes, isKept } = guarded(length, fill)
      judge(`${where}, ${length} bytes`, send(number, bytes), E2BIG)
      if (!isKept(0)) violations.push(`${where}, ${length} bytes: written`)
    }
    for (const length of [size, size + 1, size + 64]) {
      const { bytes, isKept } = guarded(length, fill)
      judge(`${where}, ${length} bytes`, send(number, bytes))
      if (!isKept(size)) violations.push(`${where}, ${length} bytes: written beyond ${size}`)
    }
  }
}

function tryCounted(name, send, { name: request, number, size }) {
  const where = `${name} ${request}, counted`
  const entry = entries.get(number)
  if (entry === undefined) {
    for (const length of [0, size, size + 4096]) judge(where, send(number, new Uint8Array(length)), EOPNOTSUPP)
    return
  }
  for (const fill of fills) {
    for (const length of [0, 1, size - 1]) judge(`${where}, ${length} bytes`, send(number, guarded(length, fill).bytes), E2BIG)
    for (const room of [0, 1, 3, 64]) {
      const length = size + room * entry
      for (const count of [room + 1, room + 1000, 2 ** 31, 2 ** 32 - 1, Math.floor(2 ** 32 / entry) + 1]) {
        if (size + count * entry <= length || count >= 2 ** 32) continue
        const { bytes, isKept } = guarded(length, fill, count)
        judge(`${where}, ${count} entries in room for ${room}`, send(number, bytes), E2BIG)
        if (!isKept(0)) violations.push(`${where}, ${count} entries in room for ${room}: written`)
      }
      // One byte short of the last entry.
      if (room > 0) judge(`${where}, a byte short`, send(number, guarded(length - 1, fill, room).bytes), E2BIG)
      for (const count of [0, room])
        for (const more of [0, 1, 64]) {
          const { bytes, isKept } = guarded(length + more, fill, count)
          judge(`${where}, ${count} entries`, send(number, bytes))
          if (!isKept(size + count * entry)) violations.push(`${where}, ${count} entries in room for ${room}: written beyond`)
        }
    }
  }
}

const words = new Int32Array(addon.vcpuWords)
for (const hasIrqchip of [false, true]) {
  const kvm = addon.open('/dev/kvm', true)
  const vm = kvm.createVm(0)
  if (hasIrqchip) vm.ioctl(requests.KVM_CREATE_IRQCHIP.number)
  const vcpu = vm.createVcpu(0)
  const vcpuNumber = vcpu.useArea(new Uint8Array(4608))
  const eventfd = addon.eventfd()
  const byWords = (request, argument) => {
    words[0] = vcpuNumber
    words[4] = request
    addon.ioctlVcpu(argument)
    return words[1]
  }
  for (const request of all) {
    for (const [name, object] of Object.entries({ kvm, vm, vcpu, eventfd })) {
      tryPlain(name, (number, argument) => object.ioctl(number, argument), request)
      tryCounted(name, (number, bytes) => object.ioctlCounted(number, bytes), request)
    }
    tryPlain('vcpu by words', byWords, request)
  }
  for (const object of [eventfd, vcpu, vm, kvm]) object.close()
  for (const request of all) judge(`closed ${request.name}`, vm.ioctl(request.number, new Uint8Array(request.size + 8)))
}
const listed = { plain: plain.size, counted: entries.size, requests: all.length }
console.log(JSON.stringify({ violations: [...new Set(violations)], counts, listed }))
process.exit(0)
