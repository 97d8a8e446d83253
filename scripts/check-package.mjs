// The tarball as a user gets it: installed into an empty folder, once with the prebuild and once compiling.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'

function run(command, args, options = {}) {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', ...options })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}\n${stdout}\n${stderr}`)
  return stdout
}

function install(tarball, folder) {
  writeFileSync(join(folder, 'package.json'), '{ "private": true }')
  run('npm', ['install', '--no-audit', '--no-fund', tarball], { cwd: folder })
  // npm may leave install scripts to the user's consent; a machine without a fitting prebuild then runs this.
  if (!readdirSync(join(folder, 'node_modules/node-kvm')).some((name) => name === 'prebuilds' || name === 'build'))
    run('npm', ['rebuild', 'node-kvm', '--foreground-scripts'], { cwd: folder })
  const program =
    "import { Kvm, Mapping } from 'node-kvm'; const kvm = Kvm.open(); const vm = kvm.createVm(); vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) }); console.log(String(vm.memslots))"
  const said = run(process.execPath, ['--input-type=module', '-e', program], { cwd: folder })
  if (!said.startsWith('slot 0: gpa 0x0-0x1000')) throw new Error(`the program said ${said}`)
  const diagnosis = JSON.parse(run('npx', ['node-kvm', 'doctor', '--json'], { cwd: folder }))
  if (!diagnosis.ok) throw new Error('doctor finds no usable KVM')
}

const scratch = mkdtempSync(join(tmpdir(), 'node-kvm-package-'))
try {
  // In a copy: prebuildify cleans the build that the checkout runs with.
  const copy = join(scratch, 'package')
  const leftOut = ['node_modules', '.git', 'build', 'build-asan', 'build-tsan', 'prebuilds']
  cpSync('.', copy, { recursive: true, filter: (path) => !leftOut.includes(basename(path)) })
  symlinkSync(resolve('node_modules'), join(copy, 'node_modules'))
  for (const withPrebuild of [false, true]) {
    if (withPrebuild) run('npx', ['prebuildify', '--napi', '--strip'], { cwd: copy })
    const packed = JSON.parse(run('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', scratch], { cwd: copy }))
    const tarball = join(scratch, (Array.isArray(packed) ? packed[0] : Object.values(packed)[0]).filename)
    const folder = mkdtempSync(join(scratch, 'install-'))
    install(tarball, folder)
    const built = readdirSync(join(folder, 'node_modules/node-kvm')).includes('build')
    if (built === withPrebuild) throw new Error(withPrebuild ? 'compiled although a prebuild fits' : 'nothing was compiled')
    console.log(`ok: installs ${withPrebuild ? 'with the prebuild' : 'by compiling'}`)
  }
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
