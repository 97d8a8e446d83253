import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { Mapping, MiB, type Vcpu, type Vm } from 'node-kvm'
import { assemble } from 'node-kvm/testing'
import { library } from './built.js'

/** The source of a Worker that attaches the VM posted to it and then runs `source` with `vm`, `library` and `parentPort`. */
export const sourceOf = (source: string) => `
  const { parentPort } = require('node:worker_threads')
  const attached = import(${library})
  parentPort.once('message', async (token) => {
    const library = await attached
    try {
      const vm = (globalThis.vm = library.Vm.attach(token))
      ${source}
    } catch (error) { parentPort.postMessage({ error: error.code ?? String(error) }) }
  })`

/** Starts such a Worker. */
export const worker = (source: string) => new Worker(sourceOf(source), { eval: true })

/** The Worker's next message. */
export async function answer(from: Worker): Promise<any> {
  return Promise.race([once(from, 'message').then(([message]) => message), once(from, 'error').then(([error]) => Promise.reject(error))])
}

/** A vCPU whose guest never exits, and counts at 0x2000. */
export function spinning(target: Vm): Vcpu {
  const ram = Mapping.anonymous(2 * MiB)
  target.memslots.create({ gpa: 0, mapping: ram })
  ram.write(0x1000, assemble('sti; 1: inc %ebx; movb $1, (0x2000); jmp 1b', { mode: 'real', at: 0x1000 }))
  return target.createVcpu().enter('real', { ip: 0x1000 })
}
