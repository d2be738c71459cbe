/**
 * `npm run soak [-- MINUTES [SEED]] [--mirror]`: random long runs of two replicating servers
 * (test/replica/nemesis.ts), or of a mirror that decides for itself (test/lab/pair-nemesis.ts), for that
 * long (60 minutes), as root. The first seed is of the clock, and printed; with the same one the
 * nemesis makes the same choices again. (`npm test` always makes the same: test/support/random.ts.)
 */
import { build } from './lib/build.mjs';
import { inForeground, runMain, StepError } from './lib/step.mjs';

const files = {
  replica: 'dist/test/replica/nemesis.test.js',
  mirror: 'dist/test/lab/pair-nemesis.test.js',
};

await runMain(() => {
  const words = process.argv.slice(2);
  const [minutes = '60', seed = String(Date.now() % 1_000_000_000)] = words.filter(
    (word) => word !== '--mirror',
  );
  if (!(Number(minutes) > 0)) throw new StepError('npm run soak [-- MINUTES [SEED]] [--mirror]');
  if (process.getuid?.() !== 0) throw new StepError('mounting needs root');
  build(['build', 'lab', 'test']);
  const env = { ...process.env, HOLDFAST_SOAK_MINUTES: minutes, HOLDFAST_SEED: seed };
  const file = words.includes('--mirror') ? files.mirror : files.replica;
  return inForeground(process.execPath, ['--enable-source-maps', '--test', file], env);
});
