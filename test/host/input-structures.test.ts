/** Every field of every generated structure, at every depth: what it cannot hold is refused by its name, and what it can is there bit for bit. */
import { isUint8Array } from 'node:util/types'
import fc from 'fast-check'
import { KvmError, Registers, SpecialRegisters } from 'node-kvm'
import { expect, test } from 'vitest'
import { address, type Field } from '../../lib/abi/fields.js'
import { bordersOf, isArray, isStructure, nameOf, objectWith, type Place, placesOf, putAt, schemas, valueAt } from '../support/fields.js'
import { skipInLab } from '../support/skip.js'
import { detached, everyButBigints, everyButNumbers, everyKind, foreign, inResizable, inShared, outOfBounds, throwing } from '../support/wrong.js'

const places = schemas.flatMap(placesOf)
const ofKinds = { numbers: everyButNumbers(), bigints: everyButBigints(), all: everyKind() }
const isBytes = (value: unknown, length: number) => isUint8Array(value) && value.length === length

/** What a field cannot hold, by what it is. */
function wrongFor(field: Field<any>): unknown[] {
  const borders = bordersOf(field)
  if (borders) {
    const [least, most] = borders
    if (typeof least === 'bigint') return [...ofKinds.bigints, least - 1n, (most as bigint) + 1n, -(2n ** 64n), 2n ** 128n]
    return [...ofKinds.numbers, least - 1, (most as number) + 1, 0.5, Number.NaN, Infinity, -(2 ** 53), 2 ** 53, 2 ** 64]
  }
  const others = ofKinds.all.filter((value) => !isBytes(value, field.size))
  if (isStructure(field)) return [...ofKinds.all.filter((value) => !isEmptyObject(value)), ...notOfStructure(field)]
  if (isArray(field)) return [...others, ...notOfArray(field)]
  const { size } = field
  const bytes = new Uint8Array(size)
  return [
    ...others,
    new Uint8Array(size + 1),
    new Uint8Array(size - 1),
    new Uint8ClampedArray(size),
    new Int8Array(size),
    [...bytes],
    bytes.buffer,
    new Proxy(bytes, {}),
    detached(size),
    outOfBounds(size)
  ]
}

/** A plain object that names no field gives none: there is nothing wrong with it. */
const isEmptyObject = (value: unknown) =>
  typeof value === 'object' && value !== null && !(Symbol.iterator in value) && !ArrayBuffer.isView(value) && Object.keys(value).length === 0

function notOfStructure(field: Field<any>): unknown[] {
  const other = (field as unknown) === Registers ? SpecialRegisters : Registers
  const proto = (field as unknown as { prototype: object }).prototype
  return [
    new Uint8Array(field.size),
    [],
    new other(),
    Object.create(proto),
    { bytes: new Uint8Array(field.size) },
    { [Symbol.iterator.toString()]: 1 }
  ]
}

function notOfArray(field: Field<unknown[]> & { element: Field<any> }): unknown[] {
  const whole = field.get(new DataView(new ArrayBuffer(field.size)), 0)
  return [whole.slice(1), [...whole, whole[0]], new Array(whole.length), { ...whole, length: whole.length }, new Set(whole), Object.create(whole)]
}

/** The error of what must be refused as an argument. */
function refusalOf(action: () => unknown): KvmError {
  try {
    action()
  } catch (error) {
    if (error instanceof KvmError && error.code === 'argument') return error
    throw error
  }
  throw new Error('it was taken')
}

/** Refused by its name, however it is given, and nothing is written. */
function checkRefused(place: Place, value: unknown): void {
  const { schema, path } = place
  const structure = schema.over(new Uint8Array(schema.size).fill(0x5a))
  const before = structure.bytes.slice()
  const ways: (() => unknown)[] = [
    () => new schema(objectWith(place, value)),
    () => schema.assign(structure, schema.structName, objectWith(place, value)),
    () => putAt(structure, path, value)
  ]
  for (const way of ways) {
    const { argument, message } = refusalOf(way)
    // In place, an inner structure knows itself by its own name.
    if (way !== ways[2]) expect(argument?.startsWith(nameOf(place)), `${argument} of ${nameOf(place)}`).toBe(true)
    expect(message.length).toBeLessThan(2000)
  }
  expect(structure.bytes).toEqual(before)
}

const seen = (place: Place, value: unknown) => `${nameOf(place)}: ${typeof value === 'symbol' ? 'a symbol' : typeof value}`

test('each field refuses each wrong value by its name, and nothing is written', (context) => {
  skipInLab(context)
  const wrong = fc.constantFrom(...places).chain((place) => {
    const values = wrongFor(place.field)
    return fc.nat(values.length - 1).map((index) => ({ place, value: values[index] }))
  })
  fc.assert(
    fc.property(wrong, ({ place, value }) => checkRefused(place, value)),
    { numRuns: 1000 }
  )
})

test('each field of each structure refuses what lies beyond its range at both ends', (context) => {
  skipInLab(context)
  const taken: string[] = []
  for (const place of places) {
    const borders = bordersOf(place.field)
    if (!borders) continue
    const [least, most] = borders
    const beyond = typeof least === 'bigint' ? [least - 1n, (most as bigint) + 1n] : [least - 1, (most as number) + 1]
    for (const value of beyond)
      try {
        new place.schema(objectWith(place, value))
        taken.push(seen(place, value))
      } catch (error) {
        if (!(error instanceof KvmError) || error.argument !== nameOf(place)) throw error
      }
  }
  expect(taken).toEqual([])
})

test('each structure at each depth refuses a name that it does not have', () => {
  for (const place of places) {
    if (!isStructure(place.field)) continue
    for (const name of ['no_such', 'bytes', 'toString', '__proto__', 'constructor', '\x1b[2J']) {
      const unknown = Object.defineProperty({}, name, { value: 1, enumerable: true })
      const { argument, message } = refusalOf(() => new place.schema(objectWith(place, unknown)))
      expect(argument).toBe(`${nameOf(place)}.${name}`)
      expect(message).not.toContain('\x1b')
    }
  }
})

/** The bits that a number's field takes, and no others. */
function maskOf(place: Place): Uint8Array {
  const ones = new place.schema()
  const { field, offset } = place
  // All of its bytes, though a number holds no more than 53 bits.
  if (field === address) return ones.bytes.fill(0xff, offset, offset + field.size)
  const [, most] = bordersOf(field) as [unknown, number | bigint]
  const signed = (bordersOf(field) as [number | bigint, unknown])[0] < 0
  putAt(ones, place.path, signed ? (typeof most === 'bigint' ? -1n : -1) : most)
  return ones.bytes
}

const scalars = places.filter(({ field }) => bordersOf(field) !== undefined)
const fitting = (field: Field<any>): fc.Arbitrary<number | bigint> => {
  const [least, most] = bordersOf(field) as [any, any]
  const any = typeof least === 'bigint' ? fc.bigInt({ min: least, max: most }) : fc.integer({ min: least, max: most })
  return fc.oneof(fc.constantFrom(least, most), any as fc.Arbitrary<number | bigint>)
}

const nothing = (size: number) => Buffer.alloc(size)

test('what fits is read back as it was, and no bit of another field is changed', (context) => {
  skipInLab(context)
  const written = fc
    .constantFrom(...scalars)
    .chain((place) => fc.record({ place: fc.constant(place), value: fitting(place.field), fill: fc.nat(255) }))
  fc.assert(
    fc.property(written, ({ place, value, fill }) => {
      const { schema, path, field, offset } = place
      const structure = schema.over(new Uint8Array(schema.size).fill(fill))
      const before = structure.bytes.slice()
      putAt(structure, path, value)
      expect(valueAt(structure, path)).toBe(value)
      const mask = maskOf(place)
      const changed = structure.bytes.map((byte, at) => (byte ^ (before[at] as number)) & ~(mask[at] as number))
      expect(Buffer.from(changed).equals(nothing(schema.size))).toBe(true)
      expect(Buffer.from(mask.fill(0, offset, offset + field.size)).equals(nothing(schema.size))).toBe(true)
      // Given by name, it is the only thing there.
      const made = new schema(objectWith(place, value))
      expect(valueAt(made, path)).toBe(value)
      putAt(made, path, typeof value === 'bigint' ? 0n : 0)
      expect(Buffer.from(made.bytes).equals(nothing(schema.size))).toBe(true)
    }),
    { numRuns: 2000 }
  )
})

test('bytes are copied whole, of shared memory and of another realm too, and a smaller or larger number of them is refused', () => {
  for (const place of places) {
    const { field, path, schema } = place
    if (bordersOf(field) || isStructure(field) || isArray(field)) continue
    const filled = Uint8Array.from({ length: field.size }, (_, index) => index + 1)
    for (const source of [filled, inShared(field.size), inResizable(field.size), foreign<Uint8Array>(`new Uint8Array(${field.size})`)]) {
      source.set(filled)
      const structure = new schema(objectWith(place, source))
      source.fill(0)
      expect(valueAt(structure, path)).toEqual(Uint8Array.from({ length: field.size }, (_, index) => index + 1))
      filled.forEach((_, index) => (filled[index] = index + 1))
    }
  }
})

test('a getter is asked once: what it says later does not count', () => {
  for (const place of scalars) {
    const { schema, path, field } = place
    const name = path[path.length - 1]
    if (typeof name === 'number') continue
    const [least, most] = bordersOf(field) as [number | bigint, number | bigint]
    let asked = 0
    const given = objectWith(
      { ...place, path: path.slice(0, -1) },
      {
        get [name as string]() {
          return asked++ === 0 ? most : (least as any) - (typeof least === 'bigint' ? 1n : (1 as any))
        }
      }
    )
    expect(valueAt(new schema(given), path)).toBe(most)
    expect(asked).toBe(1)
  }
})

test('a structure is laid over memory that is large enough and stays so, and over nothing else', () => {
  for (const schema of schemas) {
    const { size } = schema
    for (const memory of [
      ...ofKinds.all,
      detached(size),
      outOfBounds(size),
      inResizable(size),
      new Uint8Array(size - 1),
      new DataView(new ArrayBuffer(size))
    ]) {
      if (isUint8Array(memory) && memory.length >= size && !('resizable' in memory.buffer && memory.buffer.resizable)) continue
      expect(refusalOf(() => schema.over(memory as Uint8Array)).argument).toBe('memory')
    }
    const memory = inShared(size + 1)
    expect(schema.over(memory).bytes.buffer).toBe(memory.buffer)
    const lying = Object.defineProperties(new Uint8Array(size), { buffer: { value: 5 }, byteLength: { value: 2 ** 40 }, subarray: { value: 5 } })
    expect(schema.over(lying).bytes.byteLength).toBe(size)
  }
})

test('no static of a structure gives a TypeError or a RangeError, whatever it is called with', () => {
  const view = new DataView(new ArrayBuffer(512))
  const raw: string[] = []
  for (const schema of [Registers, SpecialRegisters, ...schemas.filter(({ size }) => size < 32)] as any[]) {
    const valid: Record<string, unknown[]> = {
      over: [new Uint8Array(512)],
      get: [view, 0],
      check: ['name', {}],
      set: [view, 0, schema.check('name', {})],
      assign: [new schema(), 'name', {}]
    }
    const statics = Object.getOwnPropertyNames(schema).filter((name) => typeof schema[name] === 'function' && name !== 'prototype')
    expect(Object.keys(valid).sort()).toEqual(statics.sort())
    for (const [name, args] of Object.entries(valid)) {
      schema[name](...args)
      args.forEach((_, at) => {
        for (const value of [...ofKinds.all, throwing, Object.create(schema.prototype), new Map([['rax', 5]]), new schema()])
          try {
            schema[name](...args.with(at, value))
          } catch (error) {
            if (!(error instanceof KvmError) || error.code !== 'argument') raw.push(`${schema.structName}.${name}, ${at}: ${error}`)
          }
      })
    }
  }
  expect(raw).toEqual([])
})
