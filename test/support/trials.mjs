// Tries through the library's public API what really works in this process, and prints one JSON object whose names are the doctor's.
import { Kvm, Mapping } from '../../dist/lib/index.js'
import { hostVms, readPagemap, Trace } from '../../dist/lib/observe/index.js'

async function works(trial) {
  try {
    return (await trial()) !== false
  } catch {
    return false
  }
}

function withGuest(use) {
  const kvm = Kvm.open()
  const vm = kvm.createVm()
  const page = Mapping.anonymous(4096)
  page.write(0, Uint8Array.of(0xf4))
  vm.memslots.create({ gpa: 0, mapping: page })
  const vcpu = vm.createVcpu().enter('real', { ip: 0 })
  try {
    return use({ vm, vcpu })
  } finally {
    vcpu.close()
    vm.close()
    kvm.close()
  }
}

const opens = await works(() => Kvm.open().close())
console.log(
  JSON.stringify({
    '/dev/kvm': opens,
    guests: await works(() => withGuest(({ vcpu }) => vcpu.run({ timeoutMs: 10_000 }).reason === 'hlt')),
    'tracepoints by perf': await works(() => Trace.of({ spteFormat: 'x86', processes: [process.pid] }).close()),
    // The VM of this process is read from outside: what its own process knows does not count.
    ...(opens && { BPF: await works(() => withGuest(() => hostVms().some(({ evidence }) => evidence.source === 'bpf'))) }),
    'pagemap frames': await works(() => {
      const page = Mapping.anonymous(4096, { populate: true })
      return readPagemap(page.address)[0].hpa !== undefined
    }),
    userfaultfd: await works(() => Mapping.anonymous(4096).onMissing({ content: new Uint8Array() }).close()),
    hugetlb: await works(() => Mapping.hugetlb(2 ** 21, { populate: true }).close()),
    'address space': await works(() => Mapping.anonymous(2 ** 30).close())
  })
)
