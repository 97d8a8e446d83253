// Makes every call of the library that sends an ioctl, and lets each of its ioctls in turn fail with EPROTO (fuzz/shim.c), which KVM gives to nobody. Prints the errors.
import { withFailing } from '../../dist/fuzz/program/limits.js'
import { Kvm, KvmError, Mapping } from '../../dist/lib/index.js'

const kvm = Kvm.open()
const mapping = Mapping.memfd(0x10000)
mapping.fill(0xf4)
/** A VM of its own for each call, closed after it: what failed half way is no other call's. */
function machine({ irqchip = false, vcpus = true, logDirty = false } = {}) {
  const vm = kvm.createVm()
  if (irqchip) vm.interrupts.createIrqchip()
  const slot = vm.memslots.create({ gpa: 0, mapping, logDirty })
  const vcpu = vcpus ? vm.createVcpu(3) : undefined
  return { vm, slot, vcpu }
}
const calls = {
  'Kvm.open()': [{}, () => Kvm.open().close()],
  'kvm.supportedCpuid()': [{}, () => kvm.supportedCpuid()],
  'kvm.createVm()': [{}, () => kvm.createVm().close()],
  'kvm.capabilities.check()': [{}, () => kvm.capabilities.check('IRQCHIP')],
  'vm.capabilities.check()': [{}, ({ vm }) => vm.capabilities.check('IRQCHIP')],
  'vm.capabilities.enable()': [{}, ({ vm }) => vm.capabilities.enable('EXCEPTION_PAYLOAD', 1n)],
  'vm.createVcpu()': [{}, ({ vm }) => vm.createVcpu(5)],
  'vm.createGuestMemfd()': [{}, ({ vm }) => vm.createGuestMemfd({ size: 4096 })],
  'vm.ioeventfd()': [{}, ({ vm }) => vm.ioeventfd({ port: 0x10, size: 1 })],
  'vm.coalesce()': [{}, ({ vm }) => vm.coalesce({ port: 0x10, size: 1 }, () => {})],
  'vm.stats.read()': [{}, ({ vm }) => vm.stats.read()],
  'vm.memslots.create()': [{}, ({ vm }) => vm.memslots.create({ gpa: 0x20000, mapping })],
  'vm.memslots.create() with a guest_memfd': [
    {},
    ({ vm }) => {
      if (vm.capabilities.check('GUEST_MEMFD') > 0) vm.memslots.create({ gpa: 0x20000, mapping, guestMemfd: vm.createGuestMemfd({ size: 0x10000 }) })
    }
  ],
  'slot.move()': [{}, ({ slot }) => slot.move(0x30000)],
  'slot.delete()': [{}, ({ slot }) => slot.delete()],
  'memslots.transaction()': [{}, ({ vm, slot }) => vm.memslots.transaction((transaction) => transaction.resize(slot, 4096))],
  'slot.getDirtyLog()': [{ logDirty: true }, ({ slot }) => slot.getDirtyLog()],
  'vm.dirtyLog(), bitmap': [{}, ({ vm }) => vm.dirtyLog().collect()],
  'vm.dirtyLog(), manual': [{}, ({ vm }) => vm.dirtyLog({ mode: 'manual' }).collect()],
  'slot.clearDirtyLog()': [
    {},
    ({ vm, slot }) => {
      vm.dirtyLog({ mode: 'manual' })
      slot.clearDirtyLog(new Uint8Array(8).fill(255))
    }
  ],
  'vm.dirtyLog(), ring': [
    { vcpus: false },
    ({ vm }) => {
      const log = vm.dirtyLog({ mode: 'ring' })
      const vcpu = vm.createVcpu().enter('real', { ip: 0 })
      vcpu.run()
      log.collect()
    }
  ],
  'vm.interrupts.createIrqchip()': [{ vcpus: false }, ({ vm }) => vm.interrupts.createIrqchip()],
  'vm.interrupts.createPit()': [{ irqchip: true }, ({ vm }) => vm.interrupts.createPit()],
  'vm.interrupts.setLine()': [{ irqchip: true }, ({ vm }) => vm.interrupts.setLine(5, true)],
  'vm.interrupts.signalMsi()': [{ irqchip: true }, ({ vm }) => vm.interrupts.signalMsi({ address: 0xfee0_0000, data: 0x21 })],
  'vm.interrupts.setRouting()': [{ irqchip: true }, ({ vm }) => vm.interrupts.setRouting([{ gsi: 5, irqchip: 'ioapic', pin: 5 }])],
  'vm.interrupts.irqfd()': [{ irqchip: true }, ({ vm }) => vm.interrupts.irqfd({ gsi: 5 })],
  'vcpu.run()': [{}, ({ vcpu }) => vcpu.run()],
  'vcpu.enter()': [{}, ({ vcpu }) => vcpu.enter('long', { ip: 0, tables: 0x1000, identityBytes: 2 ** 30 })],
  'vcpu.setSignalMask()': [{}, ({ vcpu }) => vcpu.setSignalMask([10])],
  'vcpu.stats.read()': [{}, ({ vcpu }) => vcpu.stats.read()],
  'vcpu.registers.set()': [{}, ({ vcpu }) => vcpu.registers.set({ rax: 1n })],
  'vcpu.registers.setSpecial()': [{}, ({ vcpu }) => vcpu.registers.setSpecial({ cr2: 1n })],
  'vcpu.registers.setFpu()': [{}, ({ vcpu }) => vcpu.registers.setFpu({ fcw: 0x37f })],
  'vcpu.cpuid.set()': [{}, ({ vcpu }) => vcpu.cpuid.set([{ function: 0 }])],
  'vcpu.msrs.get()': [{}, ({ vcpu }) => vcpu.msrs.get([0x10])],
  'vcpu.msrs.set()': [{}, ({ vcpu }) => vcpu.msrs.set([[0x10, 0n]])],
  'vcpu.events.set()': [{}, ({ vcpu }) => vcpu.events.set({ flags: 0 })],
  'vcpu.events.getMpState()': [{}, ({ vcpu }) => vcpu.events.getMpState()],
  'vcpu.events.setMpState()': [{}, ({ vcpu }) => vcpu.events.setMpState(0)],
  'vcpu.events.interrupt()': [{}, ({ vcpu }) => vcpu.events.interrupt(32)],
  'vcpu.events.nmi()': [{}, ({ vcpu }) => vcpu.events.nmi()],
  'vcpu.lapic.get()': [{ irqchip: true }, ({ vcpu }) => vcpu.lapic.get()],
  'vcpu.lapic.set()': [{ irqchip: true }, ({ vcpu }) => vcpu.lapic.set(vcpu.lapic.get())],
  'vcpu.debug.setRegisters()': [{}, ({ vcpu }) => vcpu.debug.setRegisters({ dr7: 0x400n })],
  'vcpu.debug.set()': [{}, ({ vcpu }) => vcpu.debug.set({ control: 0 })],
  'vcpu.debug.translate()': [{}, ({ vcpu }) => vcpu.debug.translate(0n)]
}

const errors = []
// Some are refused in silence: after three of them there are no more.
for (const [call, [options, make]] of Object.entries(calls))
  for (let nth = 1, silent = 0; silent < 3; nth++) {
    const made = machine(options)
    silent++
    try {
      withFailing('ioctl', nth, 'EPROTO', () => make(made))
    } catch (error) {
      const { code, ioctl, errno, message } = error
      silent = 0
      errors.push({ call, nth, isTyped: error instanceof KvmError, code, ioctl, errno, message })
    }
    made.vm.close()
  }
console.log(JSON.stringify(errors))
process.exit(0)
