// Whoever loads the add-on by its path sends any request with any buffer; under AddressSanitizer, too (npm run test:asan).
import { expect, test } from 'vitest'
import * as requests from '../../lib/abi/generated/requests.js'
import { runFault } from '../support/fault.js'
import { needsKvm } from '../support/needs.js'

test.for([1, 2])(
  'every request is refused by name, by its buffer or by the kernel, and nothing beyond the buffer is written (seed %i)',
  async (seed, context) => {
    needsKvm(context)
    const { stdout, stderr, status, signal } = await runFault('native-requests', [String(seed)])
    expect({ stderr, status, signal }).toEqual({ stderr: '', status: 0, signal: null })
    const { violations, counts, listed } = JSON.parse(stdout)
    expect(violations).toEqual([])
    // The allow-list was read, and all kinds of answers came.
    expect(listed.plain).toBeGreaterThan(20)
    expect(listed.counted).toBeGreaterThan(5)
    expect(listed.requests).toBe(Object.keys(requests).length)
    for (const kind of ['bySize', 'notListed', 'byKernel', 'done']) expect(counts[kind], kind).toBeGreaterThan(1000)
  }
)
