/**
 * Replays the KVM thread of October 2020 on a real guest. Each step checks what it shows.
 * @packageDocumentation
 */
export type { Check, Step, StepEntries, StepStatistics } from './thread-step.js'
export { runWalkthrough, type Walkthrough } from './walkthrough.js'
