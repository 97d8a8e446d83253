/**
 * The spaces that an address may be of. Each is a number, so that literals and sums pass, but an address of one space is none of another: to give
 * a host-virtual address where a guest-physical one is asked for does not compile.
 */
declare const space: unique symbol

/** A guest-physical address: what the guest's own page tables lead to. */
export type Gpa = number & { readonly [space]?: 'gpa' }
/** A host-virtual address: where the process has the memory. */
export type Hva = number & { readonly [space]?: 'hva' }
/** A host-physical address: where the memory is. */
export type Hpa = number & { readonly [space]?: 'hpa' }
