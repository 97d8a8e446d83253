// The tarball as a user gets it: installed into an empty folder, once with the prebuild and once compiling.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

function run(command, args, options = {}) {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', ...options })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}\n${stdout}\n${stderr}`)
  return stdout
}

function install(tarball, folder, env) {
  writeFileSync(join(folder, 'package.json'), '{ "private": true }')
  run('npm', ['install', '--no-audit', '--no-fund', tarball], { cwd: folder, env: { ...process.env, ...env } })
  // npm may leave install scripts to the user's consent; a machine without a fitting prebuild then runs this.
  if (!readdirSync(join(folder, 'node_modules/node-kvm')).some((name) => name === 'prebuilds' || name === 'build')) run('npm', ['rebuild', 'node-kvm', '--foreground-scripts'], { cwd: folder, env: { ...process.env, ...env } })
  const program = "import { Kvm, Mapping } from 'node-kvm'; const kvm = Kvm.open(); const vm = kvm.createVm(); vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) }); console.log(String(vm.memslots))"
  const said = run(process.execPath, ['--input-type=module', '-e', program], { cwd: folder })
  if (!said.startsWith('slot 0: gpa 0x0-0x1000')) throw new Error(`the program said ${said}`)
  const diagnosis = JSON.parse(run('npx', ['node-kvm', 'doctor', '--json'], { cwd: folder }))
  if (!diagnosis.ok) throw new Error('doctor finds no usable KVM')
}

const scratch = mkdtempSync(join(tmpdir(), 'node-kvm-package-'))
try {
  for (const withPrebuild of [true, false]) {
    rmSync('prebuilds', { recursive: true, force: true })
    if (withPrebuild) run('npx', ['prebuildify', '--napi', '--strip'])
    const folder = mkdtempSync(join(scratch, 'install-'))
    const packed = JSON.parse(run('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', scratch]))
    const tarball = join(scratch, (Array.isArray(packed) ? packed[0] : Object.values(packed)[0]).filename)
    install(tarball, folder)
    const built = readdirSync(join(folder, 'node_modules/node-kvm')).includes('build')
    if (built === withPrebuild) throw new Error(withPrebuild ? 'compiled although a prebuild fits' : 'nothing was compiled')
    console.log(`ok: installs ${withPrebuild ? 'with the prebuild' : 'by compiling'}`)
  }
} finally {
  rmSync(scratch, { recursive: true, force: true })
  rmSync('prebuilds', { recursive: true, force: true })
}
