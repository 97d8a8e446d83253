// Turns the headers' folder into the bodies of the generated files.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Unit } from './compiler.mjs'
import { additions, header } from './header.mjs'
import { inOrderOfUse, Types } from './layout.mjs'
import { kernelHeaders } from './pins.mjs'
import * as typescript from './typescript.mjs'

const byName = (values) => new Map([...values].sort(([one], [other]) => (one < other ? -1 : 1)))
const byValue = (values) => new Map([...values].sort(([one, a], [other, b]) => a - b || (one < other ? -1 : 1)))
const only = (values, isWanted) => new Map([...values].filter(([name]) => isWanted(name)))
const without = (prefix, values) => new Map([...values].map(([name, value]) => [name.slice(prefix.length), value]))

const capability = 'KVM_CAP_'
const exit = 'KVM_EXIT_'

/** Reads everything that <linux/kvm.h> defines. */
function readKvm(folders) {
  const unit = new Unit(folders, ['#include <linux/kvm.h>'])
  const names = [...unit.macros().keys()].filter((name) => /^KVM_|^GUEST_MEMFD_|_VECTOR$|^KVMIO$/.test(name))
  const types = new Types(unit.types())
  const values = unit.values(names)
  for (const { name, val, of } of types.enumerators()) if (/^sev_|^kvm_/.test(of)) values.set(name, val)
  const argumentsOf = unit.argumentTypes([...values.keys()])
  return { records: inOrderOfUse(types.records((name) => name.startsWith('kvm_'))), values, argumentsOf }
}

const requestsOf = ({ values, argumentsOf }) =>
  [...argumentsOf].map(([name, type]) => {
    const number = values.get(name)
    return { name, number, size: (number >> 16) & 0x3fff, argument: type && (type.kind === 'STRUCT' ? `struct ${type.name}` : type.name) }
  })

/** The reasons of exits by number. A name that continues another name (KVM_EXIT_IO_IN) is a value within that exit. */
function exitReasonsOf(values) {
  const names = [...values.keys()].filter((name) => name.startsWith(exit))
  return only(values, (name) => name.startsWith(exit) && !names.some((other) => name.startsWith(`${other}_`)))
}

/** The names that the library takes from the kernel's other headers. */
function readOthers(folders) {
  const unit = new Unit(
    folders,
    ['<linux/mman.h>', '<linux/capability.h>', '<asm/processor-flags.h>'].map((name) => `#include ${name}`)
  )
  return unit.values([...unit.macros().keys()].filter((name) => /^MADV_|^CAP_[A-Z_]+$|^X86_(CR\d|EFLAGS)_\w+(?<!_BIT)$/.test(name)))
}

/** These are younger than a distribution's oldest headers: populating and collapsing memory, scanning a pagemap, and some flags. */
const young = {
  headers: ['<linux/mman.h>', '<linux/fs.h>', '<linux/perf_event.h>', '<linux/userfaultfd.h>'],
  records: ['page_region', 'pm_scan_arg'],
  names: ['MADV_COLD', 'MADV_PAGEOUT', 'MADV_POPULATE_READ', 'MADV_POPULATE_WRITE', 'MADV_COLLAPSE', 'MAP_FIXED_NOREPLACE'].concat([
    'PAGE_IS_PRESENT',
    'PAGE_IS_SWAPPED',
    'PAGE_IS_PFNZERO',
    'PAGE_IS_HUGE',
    'PAGEMAP_SCAN',
    'PERF_FORMAT_LOST',
    'USERFAULTFD_IOC_NEW'
  ])
}

function readYoung(folders) {
  const unit = new Unit(
    folders,
    young.headers.map((name) => `#include ${name}`)
  )
  const values = unit.values(young.names)
  const missing = young.names.filter((name) => !values.has(name))
  if (missing.length > 0) throw new Error(`the headers have no ${missing.join(', ')}`)
  return additions(inOrderOfUse(new Types(unit.types()).records((name) => young.records.includes(name))), values)
}

/** Why a processor left its guest: the values of exit_reason in a trace. */
function readProcessorExits(folders) {
  const unit = new Unit(
    folders,
    ['<asm/vmx.h>', '<asm/svm.h>'].map((name) => `#include ${name}`)
  )
  return unit.values([...unit.macros().keys()].filter((name) => /^EXIT_REASON_|^SVM_EXIT_/.test(name)))
}

/** MSR_INDEX_H is not meant for user space; it needs these macros of the kernel's <linux/bits.h>. */
const bits =
  '#define BIT(n) (1ul << (n))\n#define BIT_ULL(n) (1ull << (n))\n#define GENMASK_ULL(high, low) (((2ull << (high)) - 1) & (~0ull << (low)))'

/**
 * The numbers of MSRs. Only the notation tells a number from a bit or a mask of a register: a number is plain and hexadecimal, or refers to another
 * register's number.
 */
function readMsrs(unit) {
  const macros = unit.macros()
  const isNumber = (name) => name.startsWith('MSR_') && /^(0x[0-9a-f]+|\(?MSR_\w+( \+ \d+)?\)?)$/i.test(macros.get(name))
  return unit.values([...macros.keys()].filter((name) => isNumber(name) && !/_MASK$|_BIT$/.test(name)))
}

/** The bits of the register that turns long mode on. */
const readEfer = (unit) => unit.values([...unit.macros().keys()].filter((name) => name.startsWith('EFER_')))

/** What <asm/cpufeature.h> needs from the kernel's other headers; none of it reaches the enumeration. */
const surroundings = `
#define __KERNEL__
#define __always_inline inline
#define ALTERNATIVE_TERNARY(...) ""
#define ANNOTATE_DATA_SPECIAL ""
typedef _Bool bool;
typedef unsigned short u16;
enum { false, true };
struct cpuinfo_x86 { unsigned x86_capability[64]; };
extern struct cpuinfo_x86 boot_cpu_data, cpu_info;`

/** CPUID_7_1_EAX is function 7, index 1; CPUID_8000_0008_EBX is function 0x80000008. */
function leafOf(word) {
  const [, ...parts] = word.split('_')
  const register = parts.pop().toLowerCase()
  if (parts[0] === 'LNX') return null
  const leaf = parts[0].length === 4 ? parts.splice(0, 2).join('') : parts.shift()
  return { leaf: Number.parseInt(leaf, 16), index: Number(parts[0] ?? 0), register }
}

function readFeatures(folders, kernel) {
  const empty = mkdtempSync(join(tmpdir(), 'node-kvm-abi-'))
  try {
    for (const name of ['asm/processor.h', 'asm/asm.h', 'linux/bitops.h', 'asm/alternative.h', 'asm/cpufeaturemasks.h']) {
      mkdirSync(dirname(join(empty, name)), { recursive: true })
      writeFileSync(join(empty, name), '')
    }
    const unit = new Unit(
      [empty, ...folders],
      [`#include "${kernel}/cpufeatures.h"`, ...surroundings.split('\n'), `#include "${kernel}/cpufeature.h"`]
    )
    const words = new Map(
      new Types(unit.types())
        .enumerators()
        .filter(({ of }) => of === 'cpuid_leafs')
        .map(({ name, val }) => [val, name])
    )
    const values = unit.values([...unit.macros().keys()].filter((name) => name.startsWith('X86_FEATURE_')))
    return [...byValue(values)].flatMap(([name, value]) => {
      const place = words.has(value >> 5) ? leafOf(words.get(value >> 5)) : null
      return place ? [{ name: name.slice('X86_FEATURE_'.length), ...place, bit: value & 31 }] : []
    })
  } finally {
    rmSync(empty, { recursive: true, force: true })
  }
}

/** The bodies, in the order in which scripts/generate-abi.mjs names the files. */
export function generate(root) {
  const folders = ['usr/include/x86_64-linux-gnu', 'usr/include'].map((name) => join(root, name))
  const kernel = join(root, 'usr/src', kernelHeaders.name, 'arch/x86/include/asm')
  const kvm = readKvm(folders)
  const requests = requestsOf(kvm).sort((one, other) => (one.name < other.name ? -1 : 1))
  const capabilities = only(kvm.values, (name) => name.startsWith(capability))
  const exits = exitReasonsOf(kvm.values)
  const rest = only(kvm.values, (name) => !kvm.argumentsOf.has(name) && !capabilities.has(name) && !exits.has(name))
  const msrs = new Unit(folders, [...bits.split('\n'), `#include "${kernel}/msr-index.h"`])
  const constants = byName([...rest, ...readOthers(folders), ...readEfer(msrs)])
  const capabilityType = '/** A name in {@link capabilities}. */\nexport type CapabilityName = keyof typeof capabilities\n'
  return [
    typescript.requests(requests),
    typescript.structures(kvm.records),
    typescript.table('capabilities', 'KVM_CAP_ numbers by name; a host answers 0 for those it lacks.', byValue(without(capability, capabilities))) +
      capabilityType,
    typescript.table('exitReasons', 'KVM_EXIT_ numbers by name.', byValue(without(exit, exits))),
    typescript.constants(constants),
    [
      typescript.table('msrs', "Numbers of MSRs by the kernel's names (arch/x86/include/asm/msr-index.h).", byName(readMsrs(msrs)), typescript.hex),
      typescript.table('processorExits', 'Why a processor left its guest: <asm/vmx.h>, <asm/svm.h>.', byName(readProcessorExits(folders))),
      typescript.features(readFeatures(folders, kernel))
    ].join('\n'),
    header(kvm.records, requests, byName([...capabilities, ...exits, ...rest])),
    readYoung(folders)
  ]
}
