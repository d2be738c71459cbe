/** `npm start [-- arguments]`: builds what is needed and runs the demo. */
import { build } from './lib/build.mjs';
import { inForeground, runMain } from './lib/step.mjs';

await runMain(() => {
  build(['build', 'lab', 'demo']);
  return inForeground(process.execPath, ['dist/src/demo.js', ...process.argv.slice(2)]);
});
