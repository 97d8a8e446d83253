// XML 1.0, production 2 (Char), lists the characters that are allowed.
const forbidden = /[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/u
const reference = /&(?:amp|lt|gt|quot|apos|#\d+|#x[0-9a-fA-F]+);/g
const tag = /^<(\/?)([a-zA-Z][\w:-]*)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>/

/**
 * Says why a document is not well-formed; null if it is. The document must be one element with elements and text in it, as this library writes them.
 */
export function malformed(document: string): string | null {
  const bad = forbidden.exec(document)
  if (bad) return `U+${bad[0].codePointAt(0)?.toString(16)} at ${bad.index}`
  const stray = document.replace(reference, '').indexOf('&')
  if (stray >= 0) return 'an & that begins no reference'
  const open: string[] = []
  let roots = 0
  for (let rest = document; rest !== ''; ) {
    const text = /^[^<]+/.exec(rest)?.[0]
    if (text !== undefined) {
      if (open.length === 0 && text.trim() !== '') return `text outside the element: ${text}`
      if (text.includes(']]>')) return 'the end of a CDATA section'
      rest = rest.slice(text.length)
      continue
    }
    const found = tag.exec(rest)
    if (!found) return `no tag: ${rest.slice(0, 80)}`
    const [whole, closes, name = '', , empty] = found
    if (closes) {
      const last = open.pop()
      if (last !== name) return `</${name}> ends <${last}>`
    } else {
      if (open.length === 0 && ++roots > 1) return 'a second element'
      if (!empty) open.push(name)
    }
    rest = rest.slice(whole.length)
  }
  return open.length > 0 ? `<${open.at(-1)}> has no end` : roots === 1 ? null : 'no element'
}
