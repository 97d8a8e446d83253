/** The requests of KVM by the names under which api.rst documents them. */
export * from './generated/requests.js'
export type { Ioctl } from './ioctl.js'
