/** Passes a VM to another Worker. */
import { argumentError } from '../../abi/arguments.js'
import { errnoName, KvmError } from '../../abi/errors.js'
import { type NativeVm, native } from '../../abi/native.js'

/** The token that share() returns. */
export interface VmToken {
  readonly nodeKvmVm: bigint
}

/** @internal */
export function tokenOf(vm: NativeVm): VmToken {
  const token = vm.share()
  if (typeof token === 'number') throw new KvmError('closed', `this VM cannot be shared: ${errnoName(token)}`)
  return { nodeKvmVm: token }
}

/** @internal */
export function vmOf(token: VmToken): NativeVm {
  const number = (token as Partial<VmToken> | null | undefined)?.nodeKvmVm
  if (typeof number !== 'bigint') throw argumentError('token', token, 'a token that share() returned')
  const vm = native.attach(number)
  if (typeof vm !== 'number') return vm
  if (errnoName(vm) === 'EBADF')
    throw new KvmError('closed', 'the VM of this token was closed, or the Worker that shared it ended, before it was attached')
  throw new KvmError(
    'argument',
    'the token belongs to no VM of this process, was already used (each attach() needs a share() of its own), or its VM ended',
    {
      argument: 'token'
    }
  )
}
