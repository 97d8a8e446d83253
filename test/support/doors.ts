/** Everything that the package exports, by each of its doors. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import * as core from 'node-kvm'
import * as observe from 'node-kvm/observe'
import * as testing from 'node-kvm/testing'
import * as walkthrough from 'node-kvm/walkthrough'

/** The exports of each door, by its name in package.json. */
export const doors: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  '.': core,
  './observe': observe,
  './testing': testing,
  './walkthrough': walkthrough
}

/** All exports by name; no two doors export the same name. */
export const everything = { ...core, ...observe, ...testing, ...walkthrough }

const root = new URL('../../', import.meta.url)
const { exports } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8')) as { exports: Record<string, { types: string } | string> }

/** The declarations that a user's compiler reads for each door of package.json. */
export const declared: Readonly<Record<string, string>> = Object.fromEntries(
  Object.entries(exports).flatMap(([door, target]) => (typeof target === 'object' ? [[door, fileURLToPath(new URL(target.types, root))]] : []))
)
