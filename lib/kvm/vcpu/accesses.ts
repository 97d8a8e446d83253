/** Exits caused by an access to a device: what the guest reads and writes, as bytes and as a number. */
import { argumentError, checkInteger, hex } from '../../abi/arguments.js'
import { KvmError } from '../../abi/errors.js'
import type { IoInExit, IoOutExit, MmioExit } from './exits.js'

function decode(data: Uint8Array, size: number): number {
  let value = 0
  for (let index = size - 1; index >= 0; index--) value = value * 0x100 + (data[index] as number)
  if (value > Number.MAX_SAFE_INTEGER)
    throw new KvmError('limit', `value: the guest's ${size} bytes are about ${hex(BigInt(value))}, which is too large for a number; read data`)
  return value
}

function encode(data: Uint8Array, size: number, value: unknown): void {
  if (typeof value === 'bigint') encodeBig(data, size, value)
  else encodeNumber(data, size, checkInteger('value', value, 0, Math.min(2 ** (8 * size) - 1, Number.MAX_SAFE_INTEGER)))
}

function encodeNumber(data: Uint8Array, size: number, value: number): void {
  for (let index = 0, rest = value; index < size; index++, rest = Math.floor(rest / 0x100)) data[index] = rest % 0x100
}

function encodeBig(data: Uint8Array, size: number, value: bigint): void {
  if (BigInt.asUintN(8 * size, value) !== value) throw argumentError('value', value, `a whole number, or a bigint, of ${size} bytes`)
  for (let index = 0; index < size; index++) data[index] = Number((value >> BigInt(8 * index)) & 0xffn)
}

/** The fields that both directions of a port access have. */
class PortAccess {
  port: number
  size: number
  count: number
  data: Uint8Array

  constructor(port: number, size: number, count: number, data: Uint8Array) {
    this.port = port
    this.size = size
    this.count = count
    this.data = data
  }
}

/** @internal A port write. */
export class PortWrite extends PortAccess implements IoOutExit {
  readonly reason = 'io-out'
  get value(): number {
    return decode(this.data, this.size)
  }
}

/** @internal A port read. */
export class PortRead extends PortAccess implements IoInExit {
  readonly reason = 'io-in'
  get value(): number {
    return decode(this.data, this.size)
  }
  set value(value: number | bigint) {
    encode(this.data, this.size, value)
  }
}

/** @internal An access to guest-physical addresses. */
export class MmioAccess implements MmioExit {
  readonly reason = 'mmio'
  gpa: number
  isWrite: boolean
  size: number
  data: Uint8Array

  constructor(gpa: number, isWrite: boolean, size: number, data: Uint8Array) {
    this.gpa = gpa
    this.isWrite = isWrite
    this.size = size
    this.data = data
  }
  get value(): number {
    return decode(this.data, this.size)
  }
  set value(value: number | bigint) {
    if (this.isWrite) throw new KvmError('state', `value: the guest wrote to gpa ${hex(this.gpa)}, and waits for no answer`)
    encode(this.data, this.size, value)
  }
}
