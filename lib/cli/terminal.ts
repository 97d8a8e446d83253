/** Passes on what a guest prints, but does not let it control this machine's terminal. */
import { StringDecoder } from 'node:string_decoder'
import { visible } from '../abi/text.js'

const escapeCharacter = '\x1b'
/** A colour sequence (SGR). The longest in use have about twenty characters. */
const colour = `${escapeCharacter}\\[[\\d;:]{0,40}`
/** The characters that a terminal shows without any other effect. */
const harmless = new RegExp(`(${colour}m|[\\n\\r\\t])`)
/** The end of a text that may be the beginning of a colour sequence. */
const beginning = new RegExp(`(?:${escapeCharacter}|${colour})$`)

const shown = (text: string) =>
  text
    .split(harmless)
    .map((part, index) => (index % 2 === 1 ? part : visible(part)))
    .join('')

/**
 * Returns a function that writes to a stream. If the stream is a terminal, everything that would act on it is made visible: titles, the clipboard,
 * and queries that the terminal answers as if the user typed. If it is no terminal, it gets every byte unchanged.
 */
export function writer(stream: NodeJS.WriteStream): (data: Uint8Array) => void {
  if (!stream.isTTY) return (data) => stream.write(data)
  const decoder = new StringDecoder('utf8')
  let held = ''
  return (data) => {
    const text = held + decoder.write(Buffer.from(data))
    held = beginning.exec(text)?.[0] ?? ''
    stream.write(shown(text.slice(0, text.length - held.length)))
  }
}
