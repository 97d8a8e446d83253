// Calls every function, method and accessor of the add-on with arguments for which it is not made. A program that does so has loaded the add-on by
// its path, and must get nothing worse than errors. This prints what it did; its caller checks whether it survives.
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { capabilities } from '../../dist/lib/abi/generated/capabilities.js'
import * as requests from '../../dist/lib/abi/generated/requests.js'

const require = createRequire(import.meta.url)
const root = fileURLToPath(new URL('../..', import.meta.url))
const addon = process.env.NODE_KVM_ADDON ? require(process.env.NODE_KVM_ADDON) : require('node-gyp-build')(root)
let seed = Number(process.argv[2] ?? 1)
const random = (below) => {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
  return Math.floor((seed / 2 ** 32) * below)
}
const one = (list) => list[random(list.length)]

const words = new Int32Array(addon.vcpuWords)
const times = new Float64Array(addon.vcpuWords)
const errno = { EBADF: 9, EINVAL: 22, E2BIG: 7, EOPNOTSUPP: 95, ESTALE: 116, ENOENT: 2 }
const nameOf = (result) => Object.keys(errno).find((name) => errno[name] === -result) ?? result
const kinds = ['anonymous', 'memfd', 'hugetlb', 'file', 'other']

/** An array whose memory was transferred away. */
function detached() {
  const bytes = new Uint8Array(8192)
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] })
  return bytes
}
function shrunk(tracking) {
  const buffer = new ArrayBuffer(8192, { maxByteLength: 16384 })
  const bytes = tracking ? new Uint8Array(buffer) : new Uint8Array(buffer, 4096, 4096)
  buffer.resize(64)
  return bytes
}
const throwing = () =>
  new Proxy(
    {},
    {
      get() {
        throw new Error('looked at')
      }
    }
  )
const coerced = () => ({
  valueOf() {
    throw new Error('asked for its value')
  },
  toString() {
    throw new Error('asked for its text')
  }
})
const numbers = [
  0,
  -0,
  1,
  2,
  7,
  255,
  256,
  4095,
  4096,
  4608,
  65536,
  -1,
  0.5,
  NaN,
  Infinity,
  -Infinity,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 32,
  2 ** 40,
  2 ** 53,
  2 ** 64
]
const arrays = [
  () => new Uint8Array(0),
  () => new Uint8Array(8),
  () => new Uint8Array(64),
  () => new Uint8Array(8192),
  () => new Uint8Array(8192).fill(255),
  () => new Uint8Array(8192).map(() => random(256)),
  () => new Uint8Array(new SharedArrayBuffer(8192, { maxByteLength: 16384 })),
  () => new Uint8Array(new ArrayBuffer(8192, { maxByteLength: 16384 })),
  () => new Float64Array(8),
  () => new Float64Array(16).fill(NaN),
  () => new BigUint64Array(4),
  () => new DataView(new ArrayBuffer(64)),
  () => Buffer.alloc(8192),
  () => new ArrayBuffer(8192),
  detached,
  () => shrunk(true),
  () => shrunk(false)
]
const options = () => ({
  kind: one(kinds),
  size: one([0, 1, 4096, 65536, 2 ** 21, 2 ** 53]),
  hugePageSize: one([0, 1, 4096, 3 << 20, 2 ** 21]),
  advice: one([undefined, 4, 14, 100, 102, 2 ** 31]),
  fd: one([0, 1, 2 ** 31 - 1]),
  offset: one(numbers),
  content: one([undefined, detached(), new Uint8Array(64)]),
  minor: random(2) === 0,
  populate: random(2) === 0,
  events: one([[], [{}], [throwing()], 5]),
  processes: one([[], [-1], ['x'], {}]),
  ringSize: one([4096, 4097, 0]),
  heldLimit: 0,
  pid: one([-1, 'x', 2 ** 31 - 1])
})
const others = [
  () => undefined,
  () => null,
  () => true,
  () => 0n,
  () => -1n,
  () => 2n ** 64n,
  () => '',
  () => 'text',
  () => '/dev/null',
  () => Symbol('x'),
  () => ({}),
  () => [],
  () => [1, 2, 3],
  () => Array(3),
  () => [null],
  () => () => {},
  () => class {},
  throwing,
  coerced,
  () => Object.create(one(live).object),
  () => new Proxy(one(live).object, {}),
  () => one(live).object,
  () => one(live).object,
  () => process.stdout._handle?._externalStream,
  options,
  options
]
const anything = () => (random(3) === 0 ? one(numbers) : random(2) === 0 ? one(arrays)() : one(others)())

/** Makes one object of each class, with the object from which it was made; a member is undefined if this host has none. */
function makeAll() {
  const kvm = addon.open('/dev/kvm', true)
  const vm = kvm.createVm(0)
  vm.memslotWords
  const vcpu = vm.createVcpu(0)
  vcpu.useArea(new Uint8Array(4608))
  const region = addon.map({ kind: 'anonymous', size: 1 << 20 })
  const memfd = addon.map({ kind: 'memfd', size: 1 << 20 })
  const served = addon.map({ kind: 'anonymous', size: 1 << 20 })
  const eventfd = addon.eventfd()
  const request = new DataView(new ArrayBuffer(64))
  request.setBigUint64(8, 0xd000_0000n, true)
  request.setInt32(20, eventfd.fd, true)
  return {
    Descriptor: kvm,
    Vm: vm,
    Vcpu: vcpu,
    VcpuRunner: vcpu.startThread(0, [], () => {}),
    Region: region,
    Memfd: memfd,
    WriteRecorder: region.recordWrites(),
    FaultService: served.serveFaults({ minor: false }),
    Watcher: addon.watchEventfds(),
    IoEventfd: vm.ioeventfd(new Uint8Array(request.buffer)),
    Tracer: addon.trace({ events: [], processes: [], children: false, ringSize: 4096, heldLimit: 4096 }),
    Eventfd: eventfd
  }
}
const objectsOf = (made) => Object.entries(made).flatMap(([name, object]) => (typeof object === 'object' ? [{ name, object }] : []))
let live = objectsOf(makeAll())

const counts = { calls: 0, threw: 0 }
/** Results are released at once, because descriptors are few. */
function letGo(result) {
  for (const name of ['close', 'release', 'end'])
    if (typeof result === 'object' && result !== null && typeof result[name] === 'function') {
      result[name]()
      return
    }
}
function attempt(call) {
  counts.calls++
  try {
    const result = call()
    if (!live.some(({ object }) => object === result)) letGo(result)
  } catch {
    counts.threw++
  }
}

// Every run has a limit, so that no guest keeps this thread.
function callWords(name) {
  words[0] = one([0, 1, 2 ** 31 - 1, -1])
  times[1] = one([0, 1, NaN, Infinity, 2 ** 31 + 1])
  words[4] = one([
    requests.KVM_GET_REGS.number,
    requests.KVM_SET_REGS.number,
    requests.KVM_GET_CPUID2.number,
    requests.KVM_RUN.number,
    requests.KVM_CREATE_VCPU.number,
    random(2 ** 32),
    0
  ])
  attempt(() => addon[name](...Array.from({ length: random(3) }, anything)))
}
// Reading all VMs of the host takes a while, so this function is called only with arguments that it refuses.
const refusedOnly = { readTables: () => one([undefined, null, 5, {}, { pid: -1 }, throwing()]), loadTables: () => undefined }

const functions = Object.keys(addon).filter((name) => typeof addon[name] === 'function')
const members = (object) =>
  Object.entries(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(object))).flatMap(([name, { value, get }]) =>
    name === 'constructor' ? [] : [{ name, call: value ?? get }]
  )
const rounds = Number(process.argv[3] ?? 40)
for (let round = 0; round < rounds; round++) {
  for (const name of functions)
    if (name.endsWith('Vcpu')) for (let time = 0; time < 5; time++) callWords(name)
    else if (name in refusedOnly) attempt(() => addon[name](refusedOnly[name]()))
    else attempt(() => addon[name].apply(anything(), Array.from({ length: random(6) }, anything)))
  for (const { object } of live) {
    attempt(() => new object.constructor(...Array.from({ length: random(4) }, anything)))
    attempt(() => object.constructor.call(anything(), anything()))
    attempt(() => Reflect.construct(object.constructor, [anything()], one(live).object.constructor))
    for (const { name, call } of members(object)) {
      // The receiver is not an object of the class: it is the prototype, an object of another class, or anything.
      attempt(() => call.call(Object.getPrototypeOf(object)))
      attempt(() => call.apply(one(live.filter((other) => other.object !== object)).object, Array.from({ length: random(6) }, anything)))
      attempt(() => call.apply(anything(), Array.from({ length: random(6) }, anything)))
      // The receiver is the object itself. The methods that end it come once, at the end of the round.
      if (!['close', 'release', 'end', 'abandon'].includes(name))
        for (let time = 0; time < 4; time++) attempt(() => call.apply(object, Array.from({ length: random(6) }, anything)))
    }
  }
  if (round % 10 !== 9) continue
  for (const { object } of live) letGo(object)
  for (const { object } of live)
    for (const { call } of members(object)) attempt(() => call.apply(object, Array.from({ length: random(6) }, anything)))
  live = objectsOf(makeAll())
}

// These take away, in the middle of a call, the object of the call.
const told = {}
{
  const { Vm: vm, Region: region } = makeAll()
  const records = new Float64Array([-1, 0, 0, 4096, 0, 0, -1, 0])
  const regions = [region]
  Object.defineProperty(regions, 0, {
    get() {
      structuredClone(records.buffer, { transfer: [records.buffer] })
      return region
    }
  })
  try {
    told.recordsTaken = vm.changeMemslots(records, regions)
  } catch (error) {
    told.recordsTaken = error.name
  }
  Object.defineProperty(regions, 0, {
    get() {
      vm.close()
      return region
    }
  })
}
{
  const { Vm: vm, Region: region } = makeAll()
  const closing = [null]
  Object.defineProperty(closing, 0, {
    get() {
      vm.close()
      return region
    }
  })
  told.vmClosed = nameOf(vm.changeMemslots(new Float64Array([-1, 0, 0, 4096, 0, 0, -1, 0]), closing))
}
{
  const { Region: region } = makeAll()
  const result = region.serveFaults({
    get minor() {
      region.release()
      return false
    }
  })
  told.regionReleased = typeof result === 'object' ? 'served' : 'refused'
  letGo(result)
}
{
  const { Vcpu: vcpu } = makeAll()
  const ranges = [true, 1, 1]
  Object.defineProperty(ranges, 1, {
    get() {
      vcpu.close()
      return 1
    }
  })
  letGo(vcpu.startThread(0, ranges, () => {}))
  told.vcpuClosed = vcpu.fd
}
// The memory of a vCPU's runs: once it was transferred away, nothing writes to it; and memory that may become smaller is refused.
{
  const { Vcpu: vcpu } = makeAll()
  const area = new Uint8Array(4608)
  words[0] = vcpu.useArea(area)
  times[1] = 0
  addon.runVcpu()
  told.ran = nameOf(words[1]) !== 'EINVAL'
  structuredClone(area.buffer, { transfer: [area.buffer] })
  addon.runVcpu()
  told.areaTransferred = nameOf(words[1])
  addon.completeVcpu()
  told.areaTransferredThen = nameOf(words[1])
  try {
    vcpu.useArea(new Uint8Array(new ArrayBuffer(8192, { maxByteLength: 16384 })))
  } catch (error) {
    told.areaResizable = error.name
  }
}
// The sizes of counted requests, and requests that do not belong to ioctl().
{
  const { Vm: vm, Vcpu: vcpu } = makeAll()
  const getCpuid = requests.KVM_GET_CPUID2.number
  told.cpuidByPlain = nameOf(vcpu.ioctl(getCpuid, new Uint8Array(8)))
  const lying = new Uint8Array(8)
  new DataView(lying.buffer).setUint32(0, 256, true)
  told.cpuidWithoutRoom = nameOf(vcpu.ioctlCounted(getCpuid, lying))
  told.cpuidOverflowing = nameOf(vcpu.ioctlCounted(getCpuid, new Uint8Array(8).fill(255)))
  told.plainByCounted = nameOf(vcpu.ioctlCounted(requests.KVM_GET_REGS.number, new Uint8Array(144)))
  told.run = nameOf(vcpu.ioctl(requests.KVM_RUN.number))
  told.memslot = nameOf(vm.ioctl(requests.KVM_SET_USER_MEMORY_REGION.number, new Uint8Array(32)))
  told.dirtyLog = nameOf(vm.ioctl(requests.KVM_GET_DIRTY_LOG.number, new Uint8Array(16)))
  told.tooSmall = nameOf(vcpu.ioctl(requests.KVM_GET_REGS.number, new Uint8Array(143)))
  told.noBytes = nameOf(vcpu.ioctl(requests.KVM_GET_REGS.number, 5))
  // KVM_CAP_HYPERV_ENLIGHTENED_VMCS stores to an address.
  const enable = new DataView(new ArrayBuffer(104))
  enable.setUint32(0, capabilities.HYPERV_ENLIGHTENED_VMCS, true)
  enable.setBigUint64(8, 4096n, true)
  told.address = nameOf(vcpu.ioctl(requests.KVM_ENABLE_CAP.number, new Uint8Array(enable.buffer)))

  // The kernel reads the count once more, and another thread changes it in between.
  const shared = new SharedArrayBuffer(8 + 40 * 4)
  const flipping = new Worker(
    `const { workerData } = require('node:worker_threads')
     const count = new Uint32Array(workerData)
     count[1] = 1
     for (;;) { count[0] = 4; count[0] = 4096 }`,
    { eval: true, workerData: shared }
  )
  const count = new Uint32Array(shared)
  const bytes = new Uint8Array(shared)
  while (count[1] !== 1) await new Promise((resolve) => setImmediate(resolve))
  const results = new Set()
  for (let time = 0; time < 20_000; time++) results.add(nameOf(vcpu.ioctlCounted(getCpuid, bytes)))
  await flipping.terminate()
  told.flipped = [...results].every((result) => result === 'E2BIG' || result === 0)
}
addon.watchLoop()
addon.watchLoop()
console.log(
  JSON.stringify({ ...counts, functions: functions.length, classes: new Set(live.map(({ object }) => object.constructor.name)).size, told })
)
process.exit(0)
