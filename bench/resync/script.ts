/** The parts of the bench that run on a host. */
import { join } from 'node:path';
import { repoRoot } from '../../src/lab/tool.ts';

/** The command line of one of them. */
export function script(name: 'writer' | 'link', args: readonly string[] = []): readonly string[] {
  return [process.execPath, join(repoRoot, 'dist/bench/resync', `${name}.js`), ...args];
}

/** The clock that all processes of the machine share, ms. */
export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
