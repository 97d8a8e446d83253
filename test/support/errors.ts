import { KvmError, type KvmErrorCode } from 'node-kvm'
import { expect } from 'vitest'

/** Runs an action that must fail, and returns the error for a closer look. */
export function checkedError(action: () => unknown, code: KvmErrorCode): KvmError & Record<string, unknown> {
  let caught: unknown
  try {
    action()
  } catch (error) {
    caught = error
  }
  expect(caught).toBeInstanceOf(KvmError)
  expect((caught as KvmError).code).toBe(code)
  return caught as KvmError & Record<string, unknown>
}
