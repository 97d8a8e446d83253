// The compiler must refuse an address of one space where another is needed, in test/support/addresses.ts; `npm run lint` compiles that file, too.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { expect, test } from 'vitest'

const file = fileURLToPath(new URL('../support/addresses.ts', import.meta.url))
const { config } = ts.readConfigFile('tsconfig.test.json', ts.sys.readFile)
const { options } = ts.parseJsonConfigFileContent(config, ts.sys, process.cwd())

/** The compiler's errors in the file, if it had this text. */
function errorsIn(text: string): string[] {
  const host = ts.createCompilerHost(options)
  const readFile = host.readFile.bind(host)
  host.readFile = (path) => (path === file ? text : readFile(path))
  const program = ts.createProgram([file], options, host)
  return ts.getPreEmitDiagnostics(program, program.getSourceFile(file)).map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, ' '))
}

test('an address of another space does not compile', () => {
  const text = readFileSync(file, 'utf8')
  const expected = /^ +\/\/ @ts-expect-error.*\n/gm
  expect(errorsIn(text)).toEqual([])
  const errors = errorsIn(text.replaceAll(expected, ''))
  expect(errors).toHaveLength(text.match(expected)?.length as number)
  for (const error of errors)
    expect(error).toMatch(/^(Argument of type|Type) '([GH][pv]a)' is not assignable to (parameter of )?type '(?!\2)[GH][pv]a/)
})
