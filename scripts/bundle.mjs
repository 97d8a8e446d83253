// Makes one file for each door of the package, and one for the code that they share: Node takes longer to find and compile the many small files that
// tsc makes than to run them. The types and the files of the command line stay where tsc puts them.
import { rmSync } from 'node:fs'
import { rolldown } from 'rolldown'

const folder = 'dist/doors'
const input = {
  index: 'dist/lib/index.js',
  observe: 'dist/lib/observe/index.js',
  testing: 'dist/lib/testing/index.js',
  walkthrough: 'dist/lib/walkthrough/index.js'
}

rmSync(folder, { recursive: true, force: true })
const bundle = await rolldown({ input, platform: 'node', external: /^[^./]/ })
await bundle.write({ dir: folder, format: 'esm', entryFileNames: '[name].js', chunkFileNames: 'shared-[hash].js' })
await bundle.close()
