/** Makes arguments as source text: mostly arguments with which a call works, now and then arguments with which it should not. */
import fc from 'fast-check'
import type { Command, Kind, Text } from './sequence.js'

export type TextArbitrary = fc.Arbitrary<Text>

/** One of several texts. */
export const oneOf = (...texts: string[]): TextArbitrary => fc.constantFrom(...texts.map((text) => [text]))
/** One of the objects of a kind that were made before. */
export const reference = (kind: Kind): TextArbitrary => fc.nat(5).map((index) => [`@${kind}:${index}`])

const bordersOfNumbers = [
  'NaN',
  '-0',
  '-1',
  '0.5',
  '1',
  '2 ** 31',
  '2 ** 32 + 1',
  '2 ** 52',
  '2 ** 53',
  '2 ** 64',
  'Infinity',
  '1n',
  '2n ** 64n',
  '-1n'
]
const otherKinds = [
  'undefined',
  'null',
  'true',
  "'4096'",
  '[4096]',
  '{}',
  '() => 4096',
  'new Proxy({}, {})',
  'Object.create(null)',
  'new Number(4096)'
]

/**
 * Arbitraries of arguments, by their purpose.
 * @param body what callbacks, getters and conversions do when they are called
 */
export function argumentsOf(body: fc.Arbitrary<readonly Command[]>) {
  const throwing = oneOf(
    '{ valueOf() { throw planted() } }',
    '{ [Symbol.toPrimitive]() { throw planted() } }',
    'new Proxy({}, { get() { throw planted() }, ownKeys() { throw planted() } })'
  )
  /** An object that does something else first when it is asked for its value. */
  const acting: TextArbitrary = fc
    .tuple(fc.constantFrom('valueOf()', '[Symbol.toPrimitive]()', 'toString()'), body)
    .map(([method, commands]) => [`{ ${method} {`, commands, 'return 4096 } }'])
  const hostile = fc.oneof(
    { weight: 3, arbitrary: oneOf(...bordersOfNumbers) },
    { weight: 2, arbitrary: oneOf(...otherKinds) },
    { weight: 1, arbitrary: throwing },
    { weight: 2, arbitrary: acting }
  )
  const mostly = (valid: TextArbitrary, other: TextArbitrary = hostile): TextArbitrary =>
    fc.oneof({ weight: 11, arbitrary: valid }, { weight: 1, arbitrary: other })
  const small = mostly(oneOf('1', '2', '4', '0', '7'), oneOf('NaN', '-1', '0.5', '65', "'1'", 'null', '2 ** 31', '1n'))

  /** An object with some of the optional options. Now and then one option is a getter that does something, or the object is not a plain one. */
  const options = (required: Record<string, TextArbitrary>, optional: Record<string, TextArbitrary> = {}): TextArbitrary => {
    const fields = fc.record({ ...required, ...optional }, { requiredKeys: Object.keys(required) })
    const form = fc.oneof(
      { weight: 8, arbitrary: fc.constant('plain') },
      { weight: 1, arbitrary: fc.constantFrom('getter', 'proxy', 'inherited', 'unknown') }
    )
    const whole = fc.tuple(fields as fc.Arbitrary<Record<string, Text>>, form, body).map(([given, how, commands]): Text => {
      const entries = Object.entries(given).flatMap(
        ([name, text], index): Text =>
          how === 'getter' && index === 0 ? [`get ${name}() {`, commands, 'return ', ...text, ' }, '] : [`${name}: `, ...text, ', ']
      )
      if (how === 'proxy') return ['new Proxy({ ', ...entries, '}, {})']
      if (how === 'inherited') return ['Object.create({ ', ...entries, '})']
      return [`{ ${how === 'unknown' ? "'toString': 1, " : ''}`, ...entries, '}']
    })
    return fc.oneof({ weight: 24, arbitrary: whole }, { weight: 1, arbitrary: hostile })
  }

  /** A function that does something, and then ends in one of several ways. */
  const handler = (parameters: string, ...ends: string[]): TextArbitrary =>
    fc
      .tuple(fc.constantFrom('', '', '', 'async '), body, fc.constantFrom(...ends, ...ends, 'throw planted()'))
      .map(([prefix, commands, end]) => [`${prefix}(${parameters}) => {`, commands, `${end} }`])

  const page = 'new Uint8Array(4096).fill(7)'
  const oddBytes = [
    'detached(4096)',
    'tracking(4096)',
    'outOfBounds(4096)',
    'sharedBytes(4096)',
    'foreign(4096)',
    'lying(4096)',
    'new Uint8Array(0)',
    'new Proxy(new Uint8Array(8), {})',
    'Object.create(Uint8Array.prototype)',
    'Buffer.alloc(4096)',
    'new DataView(new ArrayBuffer(8))',
    'new BigUint64Array(8)'
  ]
  const live: TextArbitrary = fc.nat(5).map((index) => [`live(@mapping:${index})`])
  const bytes = fc.oneof(
    { weight: 12, arbitrary: oneOf(page, 'new Uint8Array(8192)', 'new Uint8Array(16).fill(0xf4)', 'new Uint8Array(1)') },
    { weight: 4, arbitrary: oneOf(...oddBytes) },
    { weight: 1, arbitrary: live },
    { weight: 1, arbitrary: hostile }
  )

  return {
    hostile,
    mostly,
    small,
    options,
    handler,
    bytes,
    body,
    size: mostly(oneOf('4096', '8192', '65536', '2 * MiB')),
    gpa: mostly(oneOf('0', '0x1000', '0x8000', '0x10000', '0x10000', '0x20000', '0x20000', '0x30000', '0x10_0000', '2 ** 32')),
    address: mostly(oneOf('0', '0x1000', '0x4000', '0x8000', '0x10000', '0x20000')),
    offset: mostly(oneOf('0', '0', '4096', '8192', '1', '61440')),
    length: mostly(oneOf('4096', '4096', '8192', '65536', '1', '0')),
    byte: mostly(oneOf('0', '7', '255')),
    boolean: mostly(oneOf('true', 'false')),
    port: mostly(oneOf('0x10', '0x11', '0x12', '0x20', '0x70')),
    big: mostly(oneOf('0n', '1n', '0x1000n', '2n ** 63n')),
    pageContent: handler('fault', `return ${page}`, `return ${page}`, 'return null', 'return new Uint8Array(1)', 'return undefined')
  }
}

export type Arguments = ReturnType<typeof argumentsOf>
