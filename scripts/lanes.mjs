// Runs the lanes' tests in some of the lanes: node scripts/lanes.mjs ept npt:6.12
import { base, laneSuite, secondStage, slowest, table } from './suites.mjs'

const wanted = process.argv.slice(2).map((word) => word.split(':'))
if (wanted.length === 0) {
  console.error('usage: node scripts/lanes.mjs LANE[:KERNEL]...')
  process.exit(2)
}
const suites = []
for (const [lane, kernel = '6.1'] of wanted) {
  const suite = await laneSuite(lane, kernel, [base, secondStage])
  console.log(`${suite.name}: ${suite.passed} passed, ${suite.failed} failed, ${suite.skipped} skipped, ${suite.seconds} s`)
  console.log(slowest(suite))
  suites.push(suite)
}
console.log(`\n${table(suites)}`)
process.exit(suites.some(({ failed }) => failed > 0) ? 1 : 0)
