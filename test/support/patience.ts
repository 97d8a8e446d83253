/**
 * How long a test waits for what must come, in milliseconds: the limit of a hang, and no measure of anything. A machine that has other things to
 * do takes minutes for what takes milliseconds alone.
 */
export const patience = 240_000
