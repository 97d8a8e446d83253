import { styleText } from 'node:util'

/** Colour on a terminal only, and never against NO_COLOR. */
export function paint(style: 'bold' | 'dim' | 'green' | 'red' | 'yellow', text: string): string {
  return process.stdout.isTTY && !process.env['NO_COLOR'] ? styleText(style, text) : text
}
