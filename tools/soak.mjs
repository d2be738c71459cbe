/**
 * `npm run soak [-- MINUTES [SEED]] [SWITCH]`: random long runs of two replicating servers
 * (test/replica/nemesis.ts), for that long (60 minutes), as root. --mirror, --postgresql: of a mirror that
 * decides for itself (test/lab/pair-nemesis.ts), its application plain files, or PostgreSQL. The
 * first seed is of the clock, and printed; with the same one the nemesis makes the same choices again
 * (`npm test` always makes the same: test/support/random.ts). --calm: what must cause no takeover
 * (test/lab/pair-calm.test.ts), each for that long.
 */
import { build } from './lib/build.mjs';
import { inForeground, runMain, StepError } from './lib/step.mjs';

const replica = 'dist/test/replica/nemesis.test.js';
const mirror = 'dist/test/lab/pair-nemesis.test.js';
const switches = {
  '--mirror': { file: mirror, workload: 'files' },
  '--postgresql': { file: mirror, workload: 'postgresql' },
  '--calm': { file: 'dist/test/lab/pair-calm.test.js' },
};

await runMain(() => {
  const words = process.argv.slice(2);
  const [minutes = '60', seed = String(Date.now() % 1_000_000_000)] = words.filter(
    (word) => !word.startsWith('--'),
  );
  const [chosen, ...more] = words.filter((word) => word.startsWith('--'));
  const { file, workload } = switches[chosen] ?? { file: chosen === undefined ? replica : null };
  if (!(Number(minutes) > 0) || file === null || more.length > 0) {
    throw new StepError(`npm run soak [-- MINUTES [SEED]] [${Object.keys(switches).join('|')}]`);
  }
  if (process.getuid?.() !== 0) throw new StepError('mounting needs root');
  build(['build', 'lab', 'test']);
  const env = {
    ...process.env,
    HOLDFAST_SOAK_MINUTES: minutes,
    HOLDFAST_SEED: seed,
    ...(workload === undefined ? {} : { HOLDFAST_WORKLOAD: workload }),
  };
  return inForeground(process.execPath, ['--enable-source-maps', '--test', file], env);
});
