/**
 * The three kinds of address. Each is a number, so that literals and sums need no cast. But an address of one kind is not assignable to another:
 * code that gives a host-virtual address where a guest-physical one is expected does not compile.
 */
declare const space: unique symbol

/** A guest-physical address: the guest's own page tables lead to it. */
export type Gpa = number & { readonly [space]?: 'gpa' }
/** A host-virtual address: where the memory is in the process. */
export type Hva = number & { readonly [space]?: 'hva' }
/** A host-physical address: where the memory is in the machine. */
export type Hpa = number & { readonly [space]?: 'hpa' }
