/** Reads the addresses of KVM's variables from /proc/kallsyms, if it may be read. Nothing fails without them. */
import { readFileSync, statSync } from 'node:fs'
import { openingOr } from '../../abi/exhausted.js'
import type { TableRequest } from '../../abi/native.js'

type Addresses = Pick<TableRequest, 'pageOffsetBase' | 'mmioMaskAddress' | 'mmioValueAddress' | 'meMaskAddress'>

const symbols: Record<string, keyof Addresses> = {
  shadow_mmio_mask: 'mmioMaskAddress',
  shadow_mmio_value: 'mmioValueAddress',
  shadow_me_mask: 'meMaskAddress'
}
let known: { module: number; addresses: Addresses } | undefined

/** Identifies the loaded module: a module that was loaded again has other addresses and another folder. */
function moduleFolder(): number {
  return statSync('/sys/module/kvm', { throwIfNoEntry: false })?.ino ?? 0
}

function read(): Addresses {
  const addresses = { pageOffsetBase: 0n, mmioMaskAddress: 0n, mmioValueAddress: 0n, meMaskAddress: 0n }
  const text = openingOr('', 'reading /proc/kallsyms', () => readFileSync('/proc/kallsyms', 'latin1'))
  // With kptr_restrict every address reads as zero, which means "unknown" here, too.
  for (const [, address, name] of text.matchAll(/^([0-9a-f]{16}) \w (shadow_mmio_mask|shadow_mmio_value|shadow_me_mask)\b/gm))
    addresses[symbols[name as string] as keyof Addresses] = BigInt(`0x${address}`)
  return addresses
}

/** @internal */
export function kernelSymbols(): Addresses {
  const module = moduleFolder()
  if (known?.module !== module) known = { module, addresses: read() }
  return known.addresses
}
