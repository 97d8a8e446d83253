/** The signal mask of a vCPU's thread while it is in the guest. */
import { checkInteger, checkList } from '../../abi/arguments.js'
import { KVM_SET_SIGNAL_MASK } from '../../abi/generated/requests.js'
import type { VcpuHandle } from '../../abi/ioctls.js'
import { native } from '../../abi/native.js'

const bitOf = (signal: number) => 1n << BigInt(signal - 1)
/** The size of the kernel's sigset_t in bytes. */
const setSize = 8

export function setSignalMask(handle: VcpuHandle, blocked: Iterable<number>): void {
  let set = 0n
  for (const signal of checkList('blocked', blocked)) set |= bitOf(checkInteger('blocked', signal, 1, 64))
  const mask = new Uint8Array(KVM_SET_SIGNAL_MASK.size + setSize)
  new DataView(mask.buffer).setBigUint64(KVM_SET_SIGNAL_MASK.size, set & ~bitOf(native.kickSignal()), true)
  handle.counted(KVM_SET_SIGNAL_MASK, setSize, mask, 'setting its signal mask')
}
