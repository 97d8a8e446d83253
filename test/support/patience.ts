/**
 * How long a test waits for something that must come, in milliseconds. It is the limit after which the test counts as hung, and measures nothing. A
 * busy machine may take minutes for what takes milliseconds on an idle one.
 */
export const patience = 240_000
