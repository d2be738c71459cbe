/** Lint and format: what `npm run check` says and `npm test` starts with. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { filesBelow } from './build.mjs';
import { quietly, root, say } from './step.mjs';

const clangFormat = 'clang-format-14';

function bin(name) {
  return join(root, 'node_modules/.bin', name);
}

/** Throws a StepError at the first finding, after the tool's own report. */
export function lintAndFormat() {
  const folders = ['src', 'test', 'bench', 'tools'].filter((name) => existsSync(join(root, name)));
  quietly('lint', bin('oxlint'), ['--type-aware', '--deny-warnings', ...folders]);
  quietly('format', bin('biome'), ['format', '.']);
  const native = filesBelow(join(root, 'native')).filter((file) => /\.(cc|c|h|hpp)$/.test(file));
  if (native.length === 0) return;
  if (spawnSync(clangFormat, ['--version']).error !== undefined) {
    say(`format of C++: not checked, ${clangFormat} is not installed`);
    return;
  }
  quietly('format of C++', clangFormat, ['--dry-run', '--Werror', ...native]);
}
