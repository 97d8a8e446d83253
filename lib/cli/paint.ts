import { styleText } from 'node:util'

/** Colours text, but only for a terminal, and not if NO_COLOR is set. */
export function paint(style: 'bold' | 'dim' | 'green' | 'red' | 'yellow', text: string): string {
  return process.stdout.isTTY && !process.env['NO_COLOR'] ? styleText(style, text) : text
}
