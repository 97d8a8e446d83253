/** What a guest prints, on its way to this machine's terminal. */
import { StringDecoder } from 'node:string_decoder'
import { visible } from '../abi/text.js'

const escapeCharacter = '\x1b'
/** Lines, tabs and colours (SGR): what is shown and does nothing else. The longest colour that anybody sends has some twenty characters. */
const colour = `${escapeCharacter}\\[[\\d;:]{0,40}`
const harmless = new RegExp(`(${colour}m|[\\n\\r\\t])`)
/** What may be the beginning of a colour. */
const beginning = new RegExp(`(?:${escapeCharacter}|${colour})$`)

const shown = (text: string) =>
  text
    .split(harmless)
    .map((part, index) => (index % 2 === 1 ? part : visible(part)))
    .join('')

/**
 * Writes to a stream what is not to act on a terminal: titles, the clipboard, questions that the terminal answers as if they were typed. Where
 * the stream is no terminal it gets every byte as it is.
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
