/** Sets up every VM before anybody can use it. */
import { errnoName } from '../../abi/errors.js'
import { KVM_SET_IDENTITY_MAP_ADDR, KVM_SET_TSS_ADDR } from '../../abi/generated/requests.js'
import type { Ioctl } from '../../abi/ioctl.js'
import type { Handle } from '../../abi/ioctls.js'

// KVM needs two areas for real mode if the processor lacks unrestricted guest mode (api.rst 4.37, 4.47). They are below 4 GiB, where firmware lies.
const identityMap = new Uint8Array(new BigUint64Array([0xfffb_c000n]).buffer)
const taskState = 0xfffb_d000
// Only Intel processors need these. Elsewhere the kernel refuses them, and nothing is lost.
const harmless = ['EINVAL', 'ENOTTY', 'EEXIST', 'ENXIO']

export function prepareVm(handle: Handle): void {
  const set = (ioctl: Ioctl, argument: number | Uint8Array) => {
    const result = handle.send(ioctl, argument)
    if (result < 0 && !harmless.includes(errnoName(result))) throw handle.refused(ioctl, result, 'preparing it')
  }
  set(KVM_SET_IDENTITY_MAP_ADDR, identityMap)
  set(KVM_SET_TSS_ADDR, taskState)
}
