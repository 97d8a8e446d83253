/** Why a guest-physical access faulted, bit by bit. */
import { checkBits } from '../abi/arguments.js'

/** The bits of Intel SDM volume 3, table "Exit Qualification for EPT Violations", by their names there. */
export interface EptQualification {
  dataRead: boolean
  dataWrite: boolean
  instructionFetch: boolean
  /** Whether the EPT entries allowed a read; the next three fields say the same of the other rights. */
  readable: boolean
  writable: boolean
  executable: boolean
  executableForUser: boolean
  linearAddressValid: boolean
  /** The access was to the address that the linear one translates to, not to a paging structure on the way. */
  finalTranslation: boolean
  /**
   * This bit and the next two describe the guest's own translation, on processors with advanced information for EPT violations; else they are clear.
   */
  userModeAddress: boolean
  guestWritable: boolean
  guestExecuteDisable: boolean
  nmiUnblocking: boolean
  shadowStackAccess: boolean
  supervisorShadowStack: boolean
  guestPagingVerification: boolean
  /** The access was not made by the instruction at rip, but by trace output or the like. */
  asynchronous: boolean
}

/** The bits of AMD APM volume 2, "Nested Paging: EXITINFO1 of an NPF", by their names there. They begin as a #PF error code does. */
export interface NestedPageFault {
  present: boolean
  write: boolean
  user: boolean
  reservedBit: boolean
  instructionFetch: boolean
  shadowStack: boolean
  /** The fault was on the final address; `guestPageTables` says that it was on the guest's own page tables. */
  finalAddress: boolean
  guestPageTables: boolean
  supervisorShadowStack: boolean
  /** On SEV-SNP, the reverse map table forbade the access; the next fields say why. */
  reverseMap: boolean
  encrypted: boolean
  sizeMismatch: boolean
  privilegeLevel: boolean
}

const bit = (low: number, index: number) => (low & (1 << index)) !== 0

/** Decodes the exit qualification of a VMX EPT violation. */
export function decodeEptQualification(qualification: bigint): EptQualification {
  const low = Number(checkBits('qualification', qualification) & 0xffff_ffffn) | 0
  return {
    dataRead: bit(low, 0),
    dataWrite: bit(low, 1),
    instructionFetch: bit(low, 2),
    readable: bit(low, 3),
    writable: bit(low, 4),
    executable: bit(low, 5),
    executableForUser: bit(low, 6),
    linearAddressValid: bit(low, 7),
    finalTranslation: bit(low, 8),
    userModeAddress: bit(low, 9),
    guestWritable: bit(low, 10),
    guestExecuteDisable: bit(low, 11),
    nmiUnblocking: bit(low, 12),
    shadowStackAccess: bit(low, 13),
    supervisorShadowStack: bit(low, 14),
    guestPagingVerification: bit(low, 15),
    asynchronous: bit(low, 16)
  }
}

/** Decodes EXITINFO1 of an SVM nested page fault. */
export function decodeNestedPageFault(information: bigint): NestedPageFault {
  const low = Number(checkBits('information', information) & 0xffff_ffffn) | 0
  const high = Number(information >> 32n) | 0
  return {
    present: bit(low, 0),
    write: bit(low, 1),
    user: bit(low, 2),
    reservedBit: bit(low, 3),
    instructionFetch: bit(low, 4),
    shadowStack: bit(low, 6),
    finalAddress: bit(high, 0),
    guestPageTables: bit(high, 1),
    supervisorShadowStack: bit(high, 5),
    reverseMap: bit(low, 31),
    encrypted: bit(high, 2),
    sizeMismatch: bit(high, 3),
    privilegeLevel: bit(high, 4)
  }
}
