/**
 * `npm run soak [-- MINUTES [SEED]]`: random long runs of two replicating servers (test/replica/nemesis.ts)
 * for that long (60 minutes), as root. The first seed is printed; with the same one the nemesis
 * makes the same choices again.
 */
import { build } from './lib/build.mjs';
import { inForeground, runMain, StepError } from './lib/step.mjs';

await runMain(() => {
  const [minutes = '60', seed] = process.argv.slice(2);
  if (!(Number(minutes) > 0)) throw new StepError('npm run soak [-- MINUTES [SEED]]');
  if (process.getuid?.() !== 0) throw new StepError('mounting needs root');
  build(['build', 'lab', 'test']);
  const env = {
    ...process.env,
    HOLDFAST_SOAK_MINUTES: minutes,
    ...(seed === undefined ? {} : { HOLDFAST_SEED: seed }),
  };
  const file = 'dist/test/replica/nemesis.test.js';
  return inForeground(process.execPath, ['--enable-source-maps', '--test', file], env);
});
