/** `npm run check`: types, lint and format, without running anything. */
import { build } from './lib/build.mjs';
import { lintAndFormat } from './lib/check.mjs';
import { runMain } from './lib/step.mjs';

await runMain(() => {
  build(['build']);
  lintAndFormat();
});
