/** What the tests of the write interceptor share. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { ReplicaPair } from '../../src/lab/replica.ts';
import { repoRoot } from '../../src/lab/tool.ts';

/** The test programs of the write interceptor. */
export function replicaTool(): string {
  return join(repoRoot, 'build/Release/replica_tool');
}

/** Both servers hold the same trees: content, names, links, attributes. */
export async function assertEqualTrees(pair: ReplicaPair): Promise<void> {
  await pair.settled();
  const [first, second] = [pair.prim, pair.second].map(({ host }) => host.path(pair.dir));
  assert.ok(first !== undefined && second !== undefined);
  await promisify(execFile)(replicaTool(), ['compare', first, second]).catch((error: unknown) => {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string };
    assert.fail(`the trees differ:\n${stdout ?? ''}${stderr ?? String(error)}`);
  });
}
