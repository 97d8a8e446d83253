// One thread starts and stops a vCPU while a Worker runs it whenever it can: each stop() must end its own run, and no run of the Worker.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { Kvm, Mapping, Vm } from '../../dist/lib/index.js'
import { assemble } from '../../dist/lib/testing/index.js'

if (!isMainThread) {
  const vcpu = Vm.attach(workerData.token).vcpu(0)
  const ends = new Set()
  parentPort.postMessage('')
  while (Atomics.load(workerData.over, 0) === 0)
    try {
      ends.add(vcpu.run({ timeoutMs: 0.02 }).reason)
    } catch (error) {
      if (error.code !== 'busy') ends.add(error.message)
    } finally {
      // This lets the other thread begin, too.
      Atomics.wait(workerData.over, 0, 0, 0.05)
    }
  parentPort.postMessage([...ends])
} else {
  const vm = Kvm.open().createVm()
  const ram = Mapping.anonymous(4096)
  ram.write(0, assemble('sti; 1: jmp 1b', { mode: 'real', at: 0 }))
  vm.memslots.create({ gpa: 0, mapping: ram })
  const vcpu = vm.createVcpu().enter('real', { ip: 0 })
  const over = new Int32Array(new SharedArrayBuffer(4))
  const worker = new Worker(new URL(import.meta.url), { workerData: { token: vm.share(), over } })
  await new Promise((resolve) => worker.once('message', resolve))
  const ends = new Set()
  for (let stopped = 0; stopped < Number(process.argv[2]); )
    try {
      const ended = vcpu.start({}).then(
        ({ reason }) => reason,
        ({ code }) => code
      )
      await vcpu.stop()
      ends.add(await ended)
      stopped++
    } catch (error) {
      if (error.code !== 'busy') throw error
    }
  ends.delete('busy')
  Atomics.store(over, 0, 1)
  const ofWorker = await new Promise((resolve) => worker.once('message', resolve))
  console.log(...ends, ...ofWorker)
}
