// A program that loads the add-on by its path gets errors, whatever arguments it uses; under AddressSanitizer, too (npm run test:asan).
import { expect, test } from 'vitest'
import { runFault } from '../support/fault.js'
import { isOk, needsKvm } from '../support/needs.js'

test.for([1, 2, 3])('no function of the add-on crashes, whatever its this and its arguments are (seed %i)', async (seed, context) => {
  needsKvm(context)
  const { stdout, stderr, status, signal } = await runFault('native-arguments', [String(seed)])
  expect({ stderr, status, signal }).toEqual({ stderr: '', status: 0, signal: null })
  const { calls, threw, functions, classes, told } = JSON.parse(stdout)
  // Many of the calls are refused, and some work; otherwise nothing was tried.
  expect(functions).toBeGreaterThanOrEqual(18)
  // Two of the classes trace, and read the kernel's memory: their objects exist only where the host lets this user make them.
  expect(classes).toBe(8 + Number(isOk('tracefs') && isOk('tracepoints by perf')) + Number(isOk('BPF')))
  expect(threw).toBeGreaterThan(1000)
  expect(calls - threw).toBeGreaterThan(1000)
  expect(told).toEqual({
    // A getter of an argument took these away in the middle of the call.
    recordsTaken: 'TypeError',
    vmClosed: 'EBADF',
    regionReleased: isOk('userfaultfd') ? 'served' : 'refused',
    vcpuClosed: -1,
    // The memory of a vCPU's runs.
    ran: true,
    areaTransferred: 'EINVAL',
    areaTransferredThen: 'EINVAL',
    areaResizable: 'RangeError',
    // These requests have a number that does not say how much the kernel reads and writes, or carry an address.
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
