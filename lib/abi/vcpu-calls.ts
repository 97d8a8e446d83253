/** The calls that a VMM makes without end, and what they are asked by and answer in: words instead of arguments and results
 * (native/napi/vcpu_calls.h). Small functions, which V8 puts into their callers. */
import { native } from './native.js'

// VcpuCalls::Words: vcpu, result, timeout (a double), request.
const words = new Int32Array(native.vcpuWords)
const doubles = new Float64Array(native.vcpuWords)
const vcpuWord = 0
const resultWord = 1
const timeoutDouble = 1
const requestWord = 4

/** What a run returns, beside errnos, for an MMIO exit where a page may be wanted (native/core/run.h, kMmioNotAwaited). */
export const mmioNotAwaited = -4096
/** What an ioctl of a vCPU returns while a thread runs it (native/core/run.h, kInRun). */
export const inRun = -4097

/**
 * Runs a vCPU until an exit that user space must see, or for so long (below 0: no limit); copies the exit into its area, and the answer of
 * the last one out of it. Returns the exit reason, or a negative errno. In a Worker, worker.terminate() ends it.
 * @param vcpu of {@link NativeVcpu.useArea}
 */
export function runVcpu(vcpu: number, timeoutMs: number): number {
  words[vcpuWord] = vcpu
  doubles[timeoutDouble] = timeoutMs
  native.runVcpu()
  return words[resultWord] as number
}

/**
 * Does what the last exit left half done, an access with its answer, and nothing else of the guest. Zero when nothing is left of it, the
 * exit reason where it goes on, or a negative errno as of runVcpu().
 */
export function completeVcpu(vcpu: number): number {
  words[vcpuWord] = vcpu
  native.completeVcpu()
  return words[resultWord] as number
}

/** An ioctl of a vCPU. The argument is as {@link NativeDescriptor.ioctl} takes it. */
export function ioctlVcpu(vcpu: number, request: number, argument?: number | Uint8Array): number {
  words[vcpuWord] = vcpu
  words[requestWord] = request
  native.ioctlVcpu(argument)
  return words[resultWord] as number
}
