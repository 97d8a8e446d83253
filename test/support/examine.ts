/** The doctor examines the host once, before the first file; its findings are handed to all files (test/support/needs.ts). */
import { type Diagnosis, diagnose } from 'node-kvm/observe'
import type { TestProject } from 'vitest/node'

declare module 'vitest' {
  export interface ProvidedContext {
    diagnosis: Pick<Diagnosis, 'findings' | 'ok'>
  }
}

export default async function examine(project: TestProject): Promise<void> {
  const { findings, ok } = await diagnose()
  project.provide('diagnosis', { findings, ok })
}
