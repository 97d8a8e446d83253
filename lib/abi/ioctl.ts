/** One request of ioctl(2), under the name that api.rst gives it. */
export interface Ioctl {
  readonly name: string
  readonly number: number
  /** How many bytes the kernel always reads or writes; an array after the structure adds to them. */
  readonly size: number
  /** The C type of the argument, unless the argument is absent or a plain number. */
  readonly argument?: string
}
