/**
 * Guests for tests: machine code from assembler, and a guest that reads and writes at given addresses.
 * @packageDocumentation
 */
export { type AssembleOptions, assemble } from './assemble.js'
export { type Access, Guest } from './guest.js'
