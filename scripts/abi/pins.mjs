/**
 * The headers from which the ABI is generated. apt downloads a package, and its signatures prove that the package is Debian's; the hash proves that
 * it is this one. To move to another release, change the version and the hashes, then run npm run generate:abi.
 */
export const suite = 'trixie-backports'

const version = '7.3.4-1~bpo13+1'

/** The kernel's interface to user space: <linux/kvm.h> and similar headers. */
export const userHeaders = { name: 'linux-libc-dev', version, sha256: 'b3a4538fca67081c8606a93f37521d0eb74ac75996a02f3321a6b27f978e10a8' }

/** The kernel's own headers, from which only the names of MSRs and of processor features are taken. */
export const kernelHeaders = {
  name: 'linux-headers-7.3.4+deb13-common',
  version,
  sha256: '886647d4a7b05d2aedd22f8e16917c5b75e97e8946966d6bac48962c40b19a06'
}

export const packages = [userHeaders, kernelHeaders]

/** Says why the headers are not at hand: the mirror has other versions by now, or nothing may be downloaded. */
export class Unavailable extends Error {}
