/**
 * What tests choose at random, they choose by this seed. `npm test` judges one tree, so it makes the
 * same choices every time: a change is not blamed for what another seed would have found before it.
 * What is left to chance is when threads, processes and packets come. `npm run soak` explores: it
 * gives a seed of the clock. HOLDFAST_SEED repeats what one of them found.
 */
import fc from 'fast-check';

const judged = 20_260_711;

/** The seed to begin with; runs after the first one count on from it. */
export const firstSeed = Number(process.env['HOLDFAST_SEED'] ?? judged);

fc.configureGlobal({ seed: firstSeed });

export { fc };
