import { setTimeout as sleep } from 'node:timers/promises'
import { KvmError, type Vcpu } from 'node-kvm'

/** Waits until another thread has the vCPU in the guest: with one processor it may come late. */
export async function untilRunning(vcpu: Vcpu): Promise<void> {
  for (const end = Date.now() + 30_000; Date.now() < end; await sleep(1)) {
    try {
      vcpu.getRegisters()
    } catch (error) {
      if (error instanceof KvmError && error.code === 'busy') return
      throw error
    }
  }
  throw new Error(`vCPU ${vcpu.id} was never seen running`)
}
