// Whoever loads the add-on by its path gets errors, whatever they call it with; under AddressSanitizer, too (npm run test:asan).
import { expect, test } from 'vitest'
import { runFault } from '../support/fault.js'
import { isOk, needsKvm } from '../support/needs.js'

test.for([1, 2, 3])('no function of the add-on crashes, whatever its this and its arguments are (seed %i)', async (seed, context) => {
  needsKvm(context)
  const { stdout, stderr, status, signal } = await runFault('native-arguments', [String(seed)])
  expect({ stderr, status, signal }).toEqual({ stderr: '', status: 0, signal: null })
  const { calls, threw, functions, classes, told } = JSON.parse(stdout)
  // Of the calls many are refused, and some work: else nothing was tried.
  expect(functions).toBeGreaterThanOrEqual(18)
  // Two of them trace, and read the kernel's memory: there are objects of these where the host lets this user.
  expect(classes).toBe(8 + Number(isOk('tracefs') && isOk('tracepoints by perf')) + Number(isOk('BPF')))
  expect(threw).toBeGreaterThan(1000)
  expect(calls - threw).toBeGreaterThan(1000)
  expect(told).toEqual({
    // Taken away by a getter of an argument, in the middle of the call.
    recordsTaken: 'TypeError',
    vmClosed: 'EBADF',
    regionReleased: isOk('userfaultfd') ? 'served' : 'refused',
    vcpuClosed: -1,
    // The memory of a vCPU's runs.
    ran: true,
    areaTransferred: 'EINVAL',
    areaTransferredThen: 'EINVAL',
    areaResizable: 'RangeError',
    // Requests whose number does not say how much the kernel reads and writes, or that carry an address.
    cpuidByPlain: 'EOPNOTSUPP',
    cpuidWithoutRoom: 'E2BIG',
    cpuidOverflowing: 'E2BIG',
    plainByCounted: 'EOPNOTSUPP',
    run: 'EOPNOTSUPP',
    memslot: 'EOPNOTSUPP',
    dirtyLog: 'EOPNOTSUPP',
    tooSmall: 'E2BIG',
    noBytes: 'EINVAL',
    address: 'EOPNOTSUPP',
    flipped: true
  })
})
