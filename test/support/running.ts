import { setTimeout as sleep } from 'node:timers/promises'
import { KvmError, Mapping, MiB, type Vcpu, type Vm } from 'node-kvm'
import { assemble } from 'node-kvm/testing'
import { patience } from './patience.js'

/** Whether another thread has the vCPU in the guest. */
export function isRunning(vcpu: Vcpu): boolean {
  try {
    vcpu.registers.get()
    return false
  } catch (error) {
    if (error instanceof KvmError && error.code === 'busy') return true
    throw error
  }
}

/** Waits until another thread does; with one processor it may come late. */
export async function untilRunning(vcpu: Vcpu): Promise<void> {
  for (const end = Date.now() + patience; Date.now() < end; await sleep(1)) if (isRunning(vcpu)) return
  throw new Error(`vCPU ${vcpu.id} was never seen running`)
}

/** A new vCPU of the VM, ready to run the source in real mode, in memory of its own. */
export function realModeGuest(vm: Vm, source: string): Vcpu {
  const ram = Mapping.anonymous(2 * MiB)
  vm.memslots.create({ gpa: vm.memslots.length * 4 * MiB, mapping: ram })
  ram.write(0x1000, assemble(source, { mode: 'real', at: 0x1000 }))
  return vm.createVcpu().enter('real', { ip: 0x1000 })
}
