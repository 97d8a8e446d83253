// Memory whose pages are brought in when they are touched. A guest adds up a table in a file, of which only the pages that it reads are loaded.
// Then it adds up a table whose pages JavaScript makes on demand.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Kvm, Mapping, MiB } from 'node-kvm'
import { Guest } from 'node-kvm/testing'

const pageSize = 4096
const pages = 512

const folder = mkdtempSync(join(tmpdir(), 'node-kvm-demand-paging-'))
// The folder is removed on exit, so that it is also removed if the page service is refused.
process.on('exit', () => rmSync(folder, { recursive: true }))
const file = join(folder, 'table')
const table = new BigUint64Array((pages * pageSize) / 8)
for (let page = 0; page < pages; page++) table[(page * pageSize) / 8] = BigInt(page * page)
writeFileSync(file, new Uint8Array(table.buffer))

using kvm = Kvm.open()
using vm = kvm.createVm()
const guest = Guest.create(vm)

function sum(gpa: number, wanted: number[]): bigint {
  let total = 0n
  for (const page of wanted) {
    const access = guest.read(gpa + page * pageSize)
    if (access.reason !== 'done') throw new Error(`the guest left with ${access.reason}`)
    total += access.value
  }
  return total
}

// A native thread reads the file, so no JavaScript has to run meanwhile.
using fromFile = Mapping.anonymous(pages * pageSize)
using loader = fromFile.onMissing({ file })
vm.memslots.create({ gpa: 16 * MiB, mapping: fromFile })
console.log(`from the file: ${sum(16 * MiB, [1, 2, 3, 400])}, ${loader.served} of ${pages} pages loaded`)
// A read by the library itself also loads the pages that it needs.
fromFile.read(10 * pageSize, pageSize)
console.log(`after a read by the host: ${loader.served} pages`)

// A function gives the pages: run() is interrupted to call it.
using madeUp = Mapping.anonymous(pages * pageSize)
using maker = madeUp.onMissing(({ offset }) => {
  const page = new BigUint64Array(pageSize / 8)
  page[0] = BigInt(offset / pageSize) * 1000n
  return new Uint8Array(page.buffer)
})
vm.memslots.create({ gpa: 32 * MiB, mapping: madeUp })
console.log(`made up: ${sum(32 * MiB, [1, 2, 3, 400, 2])}, ${maker.served} pages made`)
