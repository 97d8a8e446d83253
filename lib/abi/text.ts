/** Text for people and programs. Strangers may have named a part of it: a process, a file, an argument. */

/** Formats a number in hexadecimal, the way the library writes every address. */
export const hex = (value: number | bigint) => (value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`)

export const shorten = (text: string, most: number) => (text.length > most ? `${text.slice(0, most - 1)}…` : text)

/**
 * Characters that act on a terminal or on the text around them, and cannot be seen: control characters (Cc, among them ESC and the C1 set, which
 * begin terminal sequences), formatting characters (Cf: bidirectional controls, zero widths, tags), line and paragraph separators, and halves of
 * surrogate pairs. The two code points that XML forbids besides these are included.
 */
const unseen = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\ufffe\uffff]/gu

function escaped(character: string): string {
  const code = character.codePointAt(0) as number
  const digits = code.toString(16)
  return code < 0x100 ? `\\x${digits.padStart(2, '0')}` : code < 0x10000 ? `\\u${digits.padStart(4, '0')}` : `\\u{${digits}}`
}

/** Makes a stranger's words safe to print on one line of a terminal: ESC becomes `\x1b`, and U+202E, which reverses the line, becomes `\u202e`. */
export const visible = (text: string) => text.replace(unseen, escaped)

/** Does the same for text whose line breaks are the program's own. */
export const visibleLines = (text: string) => text.split('\n').map(visible).join('\n')

const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }
/** Escapes text for content and attribute values of XML, SVG and HTML. Line breaks stay. */
export const xml = (text: string) => visibleLines(text).replace(/[&<>"']/g, (character) => entities[character] as string)

const plain = (_: string, value: unknown) => (typeof value === 'bigint' ? hex(value) : value)
/**
 * Writes JSON that is safe to print. JSON.stringify() leaves the C1 controls, the bidirectional controls and U+2028 as they are; here they are
 * escaped, which does not change the parsed value. JSON has no bigints, so they become hexadecimal text.
 */
export function json(value: unknown, indent?: number): string {
  const inUtf16 = (character: string) =>
    [...Array(character.length).keys()].map((at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`).join('')
  return JSON.stringify(value, plain, indent).replace(unseen, (character) => (character === '\n' ? character : inUtf16(character)))
}

/** Quotes a word for a shell's command line if it needs quotes. */
export const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)

export type ShownParts = Record<string, string | number | boolean | undefined>

/**
 * Makes the text that console.log() shows for an object: its class and main properties, `Mapping { kind: anonymous, hva: 0x1000-0x2000 }`.
 */
export function shown(name: string, parts: ShownParts): string {
  const words = Object.entries(parts).flatMap(([part, value]) => {
    if (value === undefined || value === false) return []
    return value === true ? [part] : [`${part}: ${visible(String(value))}`]
  })
  return words.length === 0 ? `${name} {}` : `${name} { ${words.join(', ')} }`
}
