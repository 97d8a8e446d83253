const half = 32_768

/** A map that forgets its oldest entries. It has two generations; when the younger one is full, the older one is dropped. */
export class Recent<T> {
  #young = new Map<number, T>()
  #old = new Map<number, T>()

  set(key: number, value: T): void {
    this.#young.set(key, value)
    if (this.#young.size < half) return
    this.#old = this.#young
    this.#young = new Map()
  }

  get(key: number): T | undefined {
    return this.#young.get(key) ?? this.#old.get(key)
  }

  take(key: number): T | undefined {
    const value = this.get(key)
    if (value !== undefined) {
      this.#young.delete(key)
      this.#old.delete(key)
    }
    return value
  }
}
