/** One request of ioctl(2), under the name that api.rst gives it. */
export interface Ioctl {
  readonly name: string
  readonly number: number
  /** The bytes that the kernel reads or writes for certain; an array behind a structure comes on top. */
  readonly size: number
  /** The C type of the argument, if the request has one that is not a plain number. */
  readonly argument?: string
}
