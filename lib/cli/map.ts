/** `node-kvm map`: shows the VMs of this host and their three tables. */
import { writeFileSync } from 'node:fs'
import { join, parse } from 'node:path'
import { hex } from '../abi/arguments.js'
import { KvmError } from '../abi/errors.js'
import { json, visible } from '../abi/text.js'
import { describeHost } from '../observe/host.js'
import { hostBits } from '../observe/tables/host-page.js'
import type { HostVm, HostVms } from '../observe/tables/host-vms.js'
import type { Summary } from '../observe/tables/summary.js'
import type { TableSlot } from '../observe/tables/table-slot.js'
import type { Tables } from '../observe/tables/tables.js'
import type { Translation } from '../observe/tables/translate.js'
import { command, parseNumber, refuseWords, UsageError } from './command.js'
import { drawTables } from './map-drawing.js'
import { paint } from './paint.js'
import { bytes, commandWords, counted, entryWords, stageName, tableLine } from './words.js'

const usage = `usage: node-kvm map [--json]
       node-kvm map --pid PID [--gpa ADDRESS] [--pages] [--summary] [--svg FILE] [--json]

  every VM on this host; with --pid one VM's memslots, and what they lead to

  --pid PID      this process's VM
  --gpa ADDRESS  one address through the three tables
  --pages        all pages
  --summary      counts by page size and state
  --svg FILE     a picture of guest memory against host memory
  --json         one JSON document`

const options = {
  json: { type: 'boolean' },
  pid: { type: 'string' },
  gpa: { type: 'string' },
  pages: { type: 'boolean' },
  summary: { type: 'boolean' },
  svg: { type: 'string' }
} as const

interface MapOptions {
  json?: boolean | undefined
  pid?: string | undefined
  gpa?: string | undefined
  pages?: boolean | undefined
  summary?: boolean | undefined
  svg?: string | undefined
}

const notes = (missing: readonly string[]) => [...new Set(missing)].map((text) => paint('yellow', `note: ${visible(text)}`))

function listLine({ pid, command, vcpus, memory, memslots, evidence }: HostVm): string {
  const known = evidence.source === 'bpf'
  return [
    String(pid).padStart(8),
    String(vcpus).padStart(5),
    (known ? bytes(memory) : '?').padStart(10),
    (known ? String(memslots.length) : '?').padStart(6),
    ` ${commandWords(command, 80)}`
  ].join(' ')
}

function slotLine({ id, addressSpace, gpa, size, hva, logDirty, readonly, backing, path }: TableSlot): string {
  const marks = [logDirty ? 'dirty-logged' : '', readonly ? 'read-only' : ''].filter(Boolean).join(', ')
  return `${String(id).padStart(5)} ${String(addressSpace).padStart(2)}  ${hex(gpa).padEnd(14)} ${bytes(size).padStart(10)}  ${hex(hva).padEnd(16)} ${backing}${path ? ` ${visible(path)}` : ''}${marks ? ` (${marks})` : ''}`
}

function hostWords({ host, hpa }: Translation): string {
  if (!host) return ''
  if (host.swapped) return 'swapped out'
  if (!host.present) return 'no page: the next access brings one'
  const size = host.hugetlb ? 'hugetlb page' : host.huge ? '2 MiB page' : host.transparentHuge ? '4 KiB page of a transparent huge one' : '4 KiB page'
  const what = [size, host.fileOrShared ? 'file or shared' : 'anonymous', host.ksm ? 'merged by KSM' : '', host.zeroPage ? 'the page of zeros' : '']
    .filter(Boolean)
    .join(', ')
  return hpa === null ? `${what}, address hidden` : what
}

const tornWarning = (torn: boolean) => (torn ? [paint('red', 'torn: the memslots never kept still while they were read')] : [])

function translationLines(translation: Translation): string[] {
  const { gpa, slot, hva, hpa, secondStage, agrees, evidence } = translation
  const backing = slot ? `slot ${slot.id}, ${slot.backing}${slot.path ? ` ${visible(slot.path)}` : ''}` : ''
  const small = secondStage.present && secondStage.whySmall ? `   <- huge on the host, not here: ${secondStage.whySmall}` : ''
  return [
    tableLine('GPA -> HVA', 'memslots', gpa, hva ?? 'no memslot: an access is MMIO', backing),
    tableLine('HVA -> HPA', 'host page tables', hva, hpa ?? '?', hostWords(translation)),
    secondStage.present
      ? tableLine('GPA -> HPA', stageName(), gpa, secondStage.hpa, `${entryWords(secondStage)}${small}`)
      : tableLine('GPA -> HPA', stageName(), gpa, secondStage.reason),
    ...(agrees === null ? [] : [agrees ? paint('green', 'the tables agree') : paint('red', 'THE TABLES DISAGREE')]),
    ...tornWarning(evidence.torn),
    ...notes(evidence.missing)
  ]
}

function pageLines(table: Tables): string[] {
  const word = (row: number) => {
    const host = table.host[row] as number
    return [
      host & hostBits.present ? 'present' : host & hostBits.swapped ? 'swapped' : 'absent',
      host & hostBits.huge ? 'huge' : '',
      host & hostBits.zeroPage ? 'zeros' : '',
      host & hostBits.fileOrShared ? 'file' : ''
    ]
      .filter(Boolean)
      .join(',')
  }
  const at = (value: number | undefined) => (value ? hex(value) : '-')
  return Array.from(
    table.gpa,
    (gpa, row) =>
      `${hex(gpa).padEnd(14)} ${at(table.hva[row]).padEnd(16)} ${at(table.hpa[row]).padEnd(14)} ${word(row).padEnd(14)} ${table.kind[row] === 4 ? 'MMIO' : table.level[row] ? `${at(table.secondHpa[row])} level ${table.level[row]}` : '-'}`
  )
}

function summaryLines(summary: Summary): string[] {
  const { slots, memory, resident, swapped, hostHuge, mapped, hugeOnHostOnly, hugeInSecondStageOnly, whySmall, compared, disagreeing } = summary
  const line = (what: string, value: string) => `${what.padEnd(27)} ${value}`
  return [
    line(`memory in ${counted(slots, 'memslot')}`, bytes(memory)),
    line('resident on the host', `${bytes(resident)}${hostHuge === null ? '' : `, of that by huge entries ${bytes(hostHuge)}`}`),
    ...(swapped ? [line('swapped out', bytes(swapped))] : []),
    line(
      `mapped in ${stageName()}`,
      `${bytes(mapped.total)}: by 4 KiB entries ${bytes(mapped.small)}, 2 MiB ${bytes(mapped.huge2M)}, 1 GiB ${bytes(mapped.huge1G)}`
    ),
    line('huge on the host only', bytes(hugeOnHostOnly)),
    ...Object.entries(whySmall).map(([why, size]) => line('', `${bytes(size)}: ${why}`)),
    line(`huge in ${stageName()} only`, hostHuge === null ? 'unknown: this kernel does not tell huge pages apart' : bytes(hugeInSecondStageOnly)),
    line('compared with the host', `${counted(compared, 'page')}, ${disagreeing === 0 ? 'all agree' : paint('red', `${disagreeing} DISAGREE`)}`)
  ]
}

/** Turns columns of numbers into rows of plain objects, for `--json --pages`. */
function pageObjects(table: Tables) {
  return Array.from(table.gpa, (gpa, row) => ({
    gpa,
    hva: table.hva[row],
    hpa: table.hpa[row] || null,
    slot: table.slots[table.slot[row] as number]?.id,
    host: table.host[row],
    secondStage: table.level[row]
      ? {
          hpa: table.secondHpa[row] || null,
          level: table.level[row],
          mmio: table.kind[row] === 4,
          spte: table.spte[row]
        }
      : null
  }))
}

async function details(vm: HostVm, options: MapOptions, gpa: number | undefined) {
  const { tables, translate } = await import('../observe/observed.js')
  const { summarize } = await import('../observe/tables/summary.js')
  const wantsTables = options.pages || options.summary || options.svg !== undefined
  const read = () => {
    const table = wantsTables ? tables(vm) : undefined
    const translation = gpa === undefined ? undefined : translate(vm, gpa)
    return { vm, translation, table, summary: table && options.summary ? summarize(table) : undefined, ended: undefined }
  }
  try {
    return read()
  } catch (error) {
    // The VM was there when it was listed. If it ended meanwhile, the others are still shown.
    if (!(error instanceof KvmError) || error.code !== 'closed') throw error
    return { vm, translation: undefined, table: undefined, summary: undefined, ended: error.message }
  }
}
type Details = Awaited<ReturnType<typeof details>>

function detailObject({ vm, translation, table, summary, ended }: Details, options: MapOptions) {
  return {
    ...vm.toJSON(),
    ...(ended !== undefined && { ended }),
    ...(translation && { translation }),
    ...(summary && { summary }),
    ...(table && options.pages && { pages: pageObjects(table) }),
    ...(table && { evidence: table.evidence })
  }
}

const titleOf = ({ pid, command: words }: HostVm) => `process ${pid}: ${commandWords(words, 110)}`

function sizesOf({ vcpus, memslots, memory, evidence }: HostVm): string {
  const known = evidence.source === 'bpf'
  return [counted(vcpus, 'vCPU'), ...(known ? [counted(memslots.length, 'memslot'), bytes(memory)] : ['memslots unknown'])].join(', ')
}

function printDetails({ vm, translation, table, summary, ended }: Details, options: MapOptions): void {
  const lines = [paint('bold', titleOf(vm)), sizesOf(vm)]
  if (ended !== undefined) lines.push(...notes([ended]))
  else if (!translation && !table)
    lines.push('', ' slot as  GPA                  size  HVA              backing', ...vm.memslots.map(slotLine), ...tornWarning(vm.evidence.torn))
  if (translation) lines.push('', ...translationLines(translation))
  if (table && options.pages)
    lines.push('', `${'GPA'.padEnd(14)} ${'HVA'.padEnd(16)} ${'HPA'.padEnd(14)} ${'host'.padEnd(14)} second stage`, ...pageLines(table))
  if (summary) lines.push('', ...summaryLines(summary))
  lines.push(...tornWarning(table?.evidence.torn ?? false))
  lines.push(...notes([...vm.evidence.missing, ...(table?.evidence.missing ?? [])]))
  console.log(lines.join('\n'))
}

function list(found: HostVms, asJson: boolean): void {
  const { unseen } = found
  if (asJson) console.log(json({ vms: found, unseen }, 2))
  else if (found.length === 0) console.log([unseen.length > 0 ? 'no VM is seen here' : 'no VM runs here', ...notes(unseen)].join('\n'))
  else
    console.log(
      [
        '     pid vCPUs     memory  slots  command',
        ...found.map(listLine),
        ...notes([...found.flatMap(({ evidence }) => evidence.missing), ...unseen])
      ].join('\n')
    )
}

/** Writes one file for each VM. If there are several, the files are named by their descriptors. */
function draw(path: string, all: Details[]): void {
  for (const { vm, table } of all) {
    const { dir, name, ext } = parse(path)
    const file = all.length === 1 ? path : join(dir, `${name}-${vm.fd}${ext}`)
    const host = describeHost()
    try {
      writeFileSync(file, drawTables(table as Tables, titleOf(vm), `${sizesOf(vm)}; second stage: ${stageName()}; Linux ${host.kernel}`))
    } catch (error) {
      throw new KvmError('argument', `drawing the picture: ${(error as Error).message}; --svg names a file that can be written`, { argument: 'svg' })
    }
  }
}

/** Loads the parts that need the add-on only here, since --help works without it. */
async function show(options: MapOptions): Promise<number> {
  const wantsOne = options.gpa !== undefined || options.pages || options.summary || options.svg !== undefined
  if (wantsOne && options.pid === undefined) throw new UsageError('--gpa, --pages, --summary and --svg need --pid')
  // Parsed before anything is searched for.
  const gpa = options.gpa === undefined ? undefined : parseNumber('gpa', options.gpa)
  const { hostVms } = await import('../observe/tables/host-vms.js')
  const found = hostVms(options.pid === undefined ? {} : { pid: parseNumber('pid', options.pid) })
  if (options.pid === undefined) {
    list(found, options.json ?? false)
    return 0
  }
  const all: Details[] = []
  for (const vm of found) all.push(await details(vm, options, gpa))
  if (options.svg !== undefined)
    draw(
      options.svg,
      all.filter(({ table }) => table !== undefined)
    )
  if (options.json) console.log(json({ vms: all.map((each) => detailObject(each, options)) }, 2))
  else for (const each of all) printDetails(each, options)
  return 0
}

/** Reads and prints. The VMs run on undisturbed. */
export const map = command({
  usage,
  options,
  run(values, words, program) {
    refuseWords(words, program)
    return show(values)
  }
})
