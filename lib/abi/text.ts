/** Text for people and programs, part of which a stranger may have named: a process, a file, an argument. */

/** Hexadecimal, as addresses are written everywhere in the library. */
export const hex = (value: number | bigint) => (value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`)

export const shorten = (text: string, most: number) => (text.length > most ? `${text.slice(0, most - 1)}…` : text)

/**
 * What acts on a terminal or on the text around it instead of being seen: control characters (Cc, among them ESC and the C1 set, which begin
 * terminal sequences), formatting ones (Cf: the bidirectional controls, zero widths, tags), line and paragraph separators, halves of surrogate
 * pairs; and the two code points that XML forbids beside these.
 */
const unseen = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\ufffe\uffff]/gu

function escaped(character: string): string {
  const code = character.codePointAt(0) as number
  const digits = code.toString(16)
  return code < 0x100 ? `\\x${digits.padStart(2, '0')}` : code < 0x10000 ? `\\u${digits.padStart(4, '0')}` : `\\u{${digits}}`
}

/** A stranger's words for a terminal, in one line: `\x1b` for ESC, `\u202e` for what turns the line around. */
export const visible = (text: string) => text.replace(unseen, escaped)

/** The same for text of several lines that are the program's own. */
export const visibleLines = (text: string) => text.split('\n').map(visible).join('\n')

const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }
/** Text and attribute values of XML, SVG and HTML; the lines are kept. */
export const xml = (text: string) => visibleLines(text).replace(/[&<>"']/g, (character) => entities[character] as string)

const plain = (_: string, value: unknown) => (typeof value === 'bigint' ? hex(value) : value)
/**
 * JSON that is safe to print, too: JSON.stringify() leaves the C1 controls, the bidirectional ones and U+2028 as they are. Escaped, they are
 * the same value to who parses it. JSON has no bigints: they are hexadecimal text.
 */
export function json(value: unknown, indent?: number): string {
  const inUtf16 = (character: string) =>
    [...Array(character.length).keys()].map((at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`).join('')
  return JSON.stringify(value, plain, indent).replace(unseen, (character) => (character === '\n' ? character : inUtf16(character)))
}

/** Quotes a word for a shell's command line, where it must be. */
export const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)

export type ShownParts = Record<string, string | number | boolean | undefined>

/**
 * What console.log() shows of an object of the library: its class and what matters of it, `Mapping { kind: anonymous, hva: 0x1000-0x2000 }`.
 * @param parts addresses as text, by hex(); what is true is shown by its name alone, and what is false or undefined not at all
 */
export function shown(name: string, parts: ShownParts): string {
  const words = Object.entries(parts).flatMap(([part, value]) => {
    if (value === undefined || value === false) return []
    return value === true ? [part] : [`${part}: ${visible(String(value))}`]
  })
  return words.length === 0 ? `${name} {}` : `${name} { ${words.join(', ')} }`
}
