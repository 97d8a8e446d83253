/**
 * The KVM thread of October 2020, replayed on a real guest: each step checks what it shows.
 * @packageDocumentation
 */
export type { Check, Step, StepEntries, StepStatistics } from './thread-step.js'
export { runWalkthrough, type Walkthrough } from './walkthrough.js'
