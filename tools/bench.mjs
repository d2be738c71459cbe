/** `npm run bench -- NAME [arguments]`: runs one bench; without a name it lists them. */
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { build, filesBelow } from './lib/build.mjs';
import { inForeground, root, runMain, say, StepError } from './lib/step.mjs';

function names() {
  return filesBelow(join(root, 'bench'))
    .filter(
      (file) => file.endsWith('.ts') && !file.slice(join(root, 'bench/').length).includes('/'),
    )
    .map((file) => basename(file, '.ts'));
}

await runMain(() => {
  const [name, ...rest] = process.argv.slice(2);
  if (name === undefined) {
    say(`npm run bench -- NAME, where NAME is one of: ${names().join(', ')}`);
    return 1;
  }
  if (!existsSync(join(root, 'bench', `${name}.ts`))) {
    throw new StepError(`there is no bench "${name}"; there are: ${names().join(', ')}`);
  }
  build(['build', 'lab', 'bench']);
  return inForeground(process.execPath, [`dist/bench/${name}.js`, ...rest]);
});
