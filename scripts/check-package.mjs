// Tests the tarball as a user gets it: it is installed into an empty folder, once with the prebuild, and once without scripts, when the doctor's
// command compiles it.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'

function run(command, args, options = {}) {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', ...options })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}\n${stdout}\n${stderr}`)
  return stdout
}

/**
 * Installs the tarball with scripts, or as a user gets it who allows no scripts: then the doctor names the command that builds the add-on, and that
 * command is run.
 */
function install(tarball, folder, withScripts) {
  writeFileSync(join(folder, 'package.json'), '{ "private": true }')
  run('npm', ['install', '--no-audit', '--no-fund', ...(withScripts ? [] : ['--ignore-scripts']), tarball], { cwd: folder })
  const { findings, ok } = diagnose(folder)
  if (!findings[0].ok) {
    console.log(`doctor: ${findings[0].detail}\n  $ ${findings[0].remedy}`)
    if (ok || findings.length < 5) throw new Error('without the add-on the doctor reports success, or too few findings')
    run('sh', ['-c', findings[0].remedy], { cwd: tmpdir() })
  }
  const program =
    "import { Kvm, Mapping } from 'node-kvm'; const kvm = Kvm.open(); const vm = kvm.createVm(); vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) }); console.log(String(vm.memslots))"
  const said = run(process.execPath, ['--input-type=module', '-e', program], { cwd: folder })
  if (!said.startsWith('slot 0: gpa 0x0-0x1000')) throw new Error(`the program said ${said}`)
  if (!diagnose(folder).ok) throw new Error('doctor finds no usable KVM')
}

/** The doctor's own status is 1 where no VM can be run. */
function diagnose(folder) {
  const { stdout, stderr } = spawnSync('npx', ['node-kvm', 'doctor', '--json'], { encoding: 'utf8', cwd: folder })
  if (stderr !== '') throw new Error(`doctor said ${stderr}`)
  return JSON.parse(stdout)
}

const scratch = mkdtempSync(join(tmpdir(), 'node-kvm-package-'))
try {
  // This works on a copy, because prebuildify cleans the build that the checkout uses.
  const copy = join(scratch, 'package')
  const leftOut = ['node_modules', '.git', 'build', 'build-asan', 'build-tsan', 'prebuilds']
  cpSync('.', copy, { recursive: true, filter: (path) => !leftOut.includes(basename(path)) })
  symlinkSync(resolve('node_modules'), join(copy, 'node_modules'))
  for (const withPrebuild of [false, true]) {
    if (withPrebuild) run('npx', ['prebuildify', '--napi', '--strip'], { cwd: copy })
    const packed = JSON.parse(run('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', scratch], { cwd: copy }))
    const tarball = join(scratch, (Array.isArray(packed) ? packed[0] : Object.values(packed)[0]).filename)
    const folder = mkdtempSync(join(scratch, 'install-'))
    install(tarball, folder, withPrebuild)
    const built = readdirSync(join(folder, 'node_modules/node-kvm')).includes('build')
    if (built === withPrebuild) throw new Error(withPrebuild ? 'the add-on was compiled although a prebuild fits' : 'nothing was compiled')
    console.log(`ok: the package installs ${withPrebuild ? 'with the prebuild' : 'without scripts, and then by the command that the doctor names'}`)
  }
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
