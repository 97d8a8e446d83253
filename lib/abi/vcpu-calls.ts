/** The calls that a VMM makes without end. Arguments and results pass through shared words (native/napi/vcpu_calls.h). The functions are small, so
 * that V8 inlines them into their callers. */
import { native } from './native.js'

// VcpuCalls::Words: vcpu, result, timeout (a double), request.
const words = new Int32Array(native.vcpuWords)
const doubles = new Float64Array(native.vcpuWords)
const vcpuWord = 0
const resultWord = 1
const timeoutDouble = 1
const requestWord = 4

/** What a run returns for an MMIO exit that may want a page, beside errnos (native/core/run.h, kMmioNotAwaited). */
export const mmioNotAwaited = -4096
/** What an ioctl of a vCPU returns while a thread runs the vCPU (native/core/run.h, kInRun). */
export const inRun = -4097

/**
 * Runs a vCPU until an exit that user space must see, or until the timeout (negative: none). The answer to the last exit is first copied from the
 * vCPU's area, and the new exit is then copied into it. Returns the exit reason, or a negative errno. In a Worker, worker.terminate() ends the run.
 * @param vcpu the number that {@link NativeVcpu.useArea} returned
 */
export function runVcpu(vcpu: number, timeoutMs: number): number {
  words[vcpuWord] = vcpu
  doubles[timeoutDouble] = timeoutMs
  native.runVcpu()
  return words[resultWord] as number
}

/**
 * Finishes the access that the last exit left half done, with its answer, and runs nothing else of the guest. Returns zero when the access is
 * finished, the exit reason when it causes another exit, or a negative errno as runVcpu() does.
 */
export function completeVcpu(vcpu: number): number {
  words[vcpuWord] = vcpu
  native.completeVcpu()
  return words[resultWord] as number
}

/** Sends an ioctl to a vCPU. The argument is as {@link NativeDescriptor.ioctl} takes it. */
export function ioctlVcpu(vcpu: number, request: number, argument?: number | Uint8Array): number {
  words[vcpuWord] = vcpu
  words[requestWord] = request
  native.ioctlVcpu(argument)
  return words[resultWord] as number
}
