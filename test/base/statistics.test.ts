import { Kvm, type Statistics, type Vm } from 'node-kvm'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { checkedError } from '../support/errors.js'
import { canRunVms, needsKvm } from '../support/needs.js'

let kvm: Kvm
let vm: Vm
beforeEach(needsKvm)
beforeAll(() => {
  if (!canRunVms) return
  kvm = Kvm.open()
  vm = kvm.createVm()
  vm.createVcpu()
})
afterAll(() => {
  vm?.close()
  kvm?.close()
})
const owners: [string, () => Statistics][] = [
  ['VM', () => vm.stats],
  ['vCPU', () => [...vm.vcpus.values()][0]?.stats as Statistics]
]

// Case E03.
describe.each(owners)('the statistics of a %s', (_, pick) => {
  test('have a header, descriptors and data that do not overlap', () => {
    const { nameSize, count, idOffset, descriptorsOffset, dataOffset } = pick().describe().layout
    const parts = [
      { start: 0, end: 24 },
      { start: idOffset, end: idOffset + nameSize },
      { start: descriptorsOffset, end: descriptorsOffset + count * (16 + nameSize) },
      {
        start: dataOffset,
        end:
          dataOffset +
          Math.max(
            ...pick()
              .describe()
              .descriptors.map(({ offset, size }) => offset + size * 8)
          )
      }
    ].sort((a, b) => a.start - b.start)
    parts.forEach((part, index) => expect(part.start).toBeGreaterThanOrEqual(parts[index - 1]?.end ?? 0))
    expect(count).toBeGreaterThan(0)
  })
  test('have an id that starts with kvm', () => {
    expect(pick().describe().id).toMatch(/^kvm-/)
  })
  test('have legal names, types, units, bases and buckets', () => {
    const names = new Set<string>()
    for (const { name, type, unit, base, exponent, size, bucketSize } of pick().describe().descriptors) {
      expect(name).toMatch(/^[a-z0-9_]+$/)
      expect(names.add(name).size).toBeGreaterThan(0)
      expect(['cumulative', 'instant', 'peak', 'linear-histogram', 'log-histogram']).toContain(type)
      expect(['none', 'bytes', 'seconds', 'cycles', 'boolean']).toContain(unit)
      expect(['power-of-10', 'power-of-2']).toContain(base)
      if (unit === 'seconds') expect(exponent).toBeLessThanOrEqual(0)
      if (type.endsWith('histogram')) expect(size).toBeGreaterThan(1)
      else expect(size).toBe(1)
      expect(bucketSize > 0).toBe(type === 'linear-histogram')
    }
    expect(names.size).toBe(pick().describe().descriptors.length)
  })
  test('are the same read all at once and one by one', () => {
    const all = pick().read()
    expect(Object.keys(all)).toEqual(
      pick()
        .describe()
        .descriptors.map(({ name }) => name)
    )
    for (const [name, value] of Object.entries(all)) expect(pick().read(name)).toEqual(value)
    expect(pick().read('no_such_statistic')).toBeUndefined()
  })
})

// Case E03.
test('the descriptor of statistics can be closed before its VM, and says so afterwards', () => {
  using other = kvm.createVm()
  const { stats } = other
  stats.close()
  stats.close()
  checkedError(() => stats.read(), 'closed')
})
