import { expect, test } from 'vitest'
import { writer } from '../../lib/cli/terminal.js'

/** The text that arrives at a stream when a guest prints these pieces. */
function printed(isTTY: boolean, ...pieces: (string | Buffer)[]): string {
  const written: Buffer[] = []
  const stream = { isTTY, write: (data: string | Uint8Array) => written.push(Buffer.from(data as Uint8Array)) }
  const write = writer(stream as unknown as NodeJS.WriteStream)
  for (const piece of pieces) write(Buffer.from(piece as Buffer))
  return Buffer.concat(written).toString('latin1')
}
const hostile = '\x1b]0;title\x07\x1b]52;c;Y3VybA==\x07\x1b[6n\x1b[2J\x1bc\x9b31m\x08\u202e'

test('a guest acts on no terminal: lines and colours stay, and the rest is made visible', () => {
  expect(printed(true, '\x1b[1;38:5:196mred\x1b[0m\tand\r\nmore\n')).toBe('\x1b[1;38:5:196mred\x1b[0m\tand\r\nmore\n')
  expect(printed(true, hostile)).toBe('\\x1b]0;title\\x07\\x1b]52;c;Y3VybA==\\x07\\x1b[6n\\x1b[2J\\x1bc\\x9b31m\\x08\\u202e')
})
test('sequences and characters that come in pieces are the same', () => {
  const text = `\x1b[31mü${hostile}\x1b[0m.`
  const whole = printed(true, text)
  expect(printed(true, ...[...Buffer.from(text)].map((byte) => Buffer.from([byte])))).toBe(whole)
  expect(whole).toContain(Buffer.from('\x1b[31mü').toString('latin1'))
})
test('a pipe gets every byte', () => {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))
  expect(printed(false, bytes)).toBe(bytes.toString('latin1'))
})
