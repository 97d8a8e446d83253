/** A Worker of a program that runs in a child of the fuzzer. */
import { names } from './names.js'
import { serve } from './workers.js'

serve(names)
