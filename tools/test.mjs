/**
 * `npm test [-- PATTERN …]`: everything, from a fresh checkout: packages, build, lint, format, the
 * native engines' own tests, then the tests of dist/test/. With patterns: the build, then only the
 * test files whose path contains one of them.
 */
import { existsSync } from 'node:fs';
import { join, relative } from 'node:path';
import { build, filesBelow } from './lib/build.mjs';
import { lintAndFormat } from './lib/check.mjs';
import { inMemory } from './lib/memory.mjs';
import { inForeground, root, runMain, say, StepError } from './lib/step.mjs';

function testFiles(patterns) {
  return filesBelow(join(root, 'dist/test'))
    .filter((file) => file.endsWith('.test.js'))
    .filter((file) => {
      const path = relative(root, file).replace(/\.js$/, '.ts');
      return patterns.length === 0 || patterns.some((pattern) => path.includes(pattern));
    });
}

await runMain(async () => {
  const patterns = process.argv.slice(2);
  build(['build', 'lab', 'test']);
  if (patterns.length === 0) {
    lintAndFormat();
    if (existsSync(join(root, 'tools/native-tests.mjs'))) {
      const code = await inForeground(process.execPath, ['tools/native-tests.mjs']);
      if (code !== 0) throw new StepError(`the native tests failed (exit code ${code})`);
    }
  }
  const files = testFiles(patterns);
  if (files.length === 0) throw new StepError(`no test file matches ${patterns.join(' ')}`);
  say(`${files.length} test files${process.getuid() === 0 ? '' : ', without those for root'}`);
  return inMemory(process.execPath, [join(root, 'tools/lib/tests.mjs'), ...files]);
});
