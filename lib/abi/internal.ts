/**
 * How private things stay private across modules. Native objects are in #private fields. If another module of the library needs one, the module
 * of the class exports a function that a static block of the class assigns, marked `@internal`. The package exports neither, and no object leads
 * to the function. Constructors of public classes ask for a key.
 */
import { KvmError } from './errors.js'

/** The key that these constructors ask for. Only the library's modules have it. */
export const ours = Symbol('node-kvm')

/** Refuses a constructor call from outside, for classes that only the library makes. */
export function checkOurs(key: unknown, name: string, maker: string): void {
  if (key !== ours) throw new KvmError('argument', `${name} is not made by new: ${maker} makes it`)
}

/**
 * Fixes the parent of a class whose constructor hands something private to its parent class. super() calls whatever the class inherits from at
 * that time, and Object.setPrototypeOf() could make that anybody's class.
 */
export function fixParent(derived: object): void {
  Object.preventExtensions(derived)
}
