/**
 * How what is private stays so, across modules. Native objects lie in #private fields. Where another module of the library needs one, the
 * class's own module exports a function that a static block of the class assigns, marked `@internal`: the package exports neither, and there
 * is no way from an object to it. Constructors of public classes ask for a key.
 */
import { KvmError } from './errors.js'

/** The key that such constructors ask for; only the library's modules have it. */
export const ours = Symbol('node-kvm')

/** Refuses a call of a constructor whose class the library alone makes. */
export function checkOurs(key: unknown, name: string, maker: string): void {
  if (key !== ours) throw new KvmError('argument', `${name} is not made by new: ${maker} makes it`)
}

/**
 * For a class whose constructor hands something private to the one that it extends: super() calls whatever the class inherits from at that time,
 * which Object.setPrototypeOf() would make anybody's.
 */
export function fixParent(derived: object): void {
  Object.preventExtensions(derived)
}
