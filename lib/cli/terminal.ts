/** Passes on what a guest prints, without letting it act on this machine's terminal. */
import { StringDecoder } from 'node:string_decoder'
import { visible } from '../abi/text.js'

const escapeCharacter = '\x1b'
/** Colours (SGR). The longest that anybody sends has some twenty characters. */
const colour = `${escapeCharacter}\\[[\\d;:]{0,40}`
/** What a terminal shows without doing anything else. */
const harmless = new RegExp(`(${colour}m|[\\n\\r\\t])`)
/** The end of a text that may be the beginning of a colour. */
const beginning = new RegExp(`(?:${escapeCharacter}|${colour})$`)

const shown = (text: string) =>
  text
    .split(harmless)
    .map((part, index) => (index % 2 === 1 ? part : visible(part)))
    .join('')

/**
 * Returns a function that writes to a stream. Where that is a terminal, everything is made visible that would act on it: titles, the clipboard,
 * questions that the terminal answers as if they were typed. Where it is none, it gets every byte as it is.
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
