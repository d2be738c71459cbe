import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { ScriptRun } from '../../src/module/scripts.ts';
import { type Paths, pathsBelow } from '../../src/paths.ts';

/**
 * A node's folders below a temporary root that goes when the test ends; with a size, on a tmpfs of
 * that size (needs root).
 */
export function temporaryPaths(t: TestContext, tmpfsSize: string | null = null): Paths {
  const root = mkdtempSync(join(tmpdir(), 'hfm-'));
  if (tmpfsSize !== null) {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${tmpfsSize}`, 'hfm', root]);
  }
  t.after(() => {
    if (tmpfsSize !== null) execFileSync('umount', [root]);
    rmSync(root, { recursive: true, force: true });
  });
  return pathsBelow(root);
}

/** Installs a module by hand: its scripts by name, with `#!/bin/sh` put before them. */
export function handMade(
  paths: Paths,
  name: string,
  scripts: Readonly<Record<string, string>>,
): void {
  const root = join(paths.modules, name);
  mkdirSync(join(root, 'conf'), { recursive: true });
  mkdirSync(join(root, 'bin'), { recursive: true });
  writeFileSync(join(root, 'conf/userconfig.xml'), '<safe/>');
  for (const [script, text] of Object.entries(scripts)) {
    writeFileSync(join(root, 'bin', script), `#!/bin/sh\n${text}\n`);
    chmodSync(join(root, 'bin', script), 0o755);
  }
}

export function scriptRun(paths: Paths, change: Partial<ScriptRun> = {}): ScriptRun {
  return {
    paths,
    module: { name: 'web', node: 'node1', vars: {} },
    script: 'start_both',
    current: 'WAIT',
    next: 'UP',
    action: 'start',
    force: false,
    timeoutMs: 20_000,
    log: { logging: 'userlog', userlogKib: 64 },
    ...change,
  };
}

/** Waits until look() gives something; the bound only ends a test that has failed. */
export async function eventually<T>(
  look: () => T | null | undefined | false,
  what: string,
): Promise<T> {
  const until = performance.now() + 20_000;
  for (;;) {
    const found = look();
    if (found !== null && found !== undefined && found !== false) return found;
    if (performance.now() > until) throw new Error(`did not happen: ${what}`);
    await delay(10);
  }
}

/** Content of a file once it is there and ends in a newline. */
export function lineOf(path: string): string | null {
  if (!existsSync(path)) return null;
  const text = readFileSync(path, 'utf8');
  return text.endsWith('\n') ? text.trim() : null;
}
