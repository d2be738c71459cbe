/** `npm run build`: dist/ and build/Release/ from the sources. */
import { build } from './lib/build.mjs';
import { runMain } from './lib/step.mjs';

await runMain(() => build(['build']));
