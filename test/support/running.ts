import { setTimeout as sleep } from 'node:timers/promises'
import { KvmError, type Vcpu } from 'node-kvm'
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
