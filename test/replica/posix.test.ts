/**
 * The table of POSIX behaviours (native/lab/replica/posix*.cc), on a bare directory and on a
 * replicated one: the same outcomes, but for the deviations that docs/reference/replication-limits.md
 * gives the reasons for; and the other server has the same tree afterwards.
 */
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { cannotRun, Ground, type Pair, run, tool } from './pair.ts';

/** What comes out otherwise through the mount: name, bare, mounted. */
const deviations: readonly (readonly [name: string, bare: string, mounted: string])[] = [
  // Reads from the page cache do not reach the file system below.
  ['times.first read after a change', 'a', '-'],
  ['times.read a day later', 'a', '-'],
  // The kernel does not pass these to a FUSE server.
  ['allocate.collapse', 'ok', 'EOPNOTSUPP'],
  ['allocate.insert', 'ok', 'EOPNOTSUPP'],
  ['renameat2.WHITEOUT', 'ok', 'EINVAL'],
];

/** At least so many outcomes: a table that lost entries must not pass. */
const least = 900;

function parse(out: string): Map<string, string> {
  const outcomes = new Map<string, string>();
  for (const line of out.split('\n')) {
    const at = line.indexOf('=');
    if (at > 0) outcomes.set(line.slice(0, at), line.slice(at + 1));
  }
  return outcomes;
}

describe('posix', { skip: cannotRun }, () => {
  let ground: Ground;
  let pair: Pair;
  before(async () => {
    ground = await Ground.make();
    pair = await ground.pair();
  });
  after(async () => {
    await pair.end();
    await ground.end();
  });

  test('a replicated directory behaves as a bare one', async (t) => {
    const bare = join(pair.folder, 'bare');
    await mkdir(bare);
    const expected = await run(tool, ['posix', bare]);
    assert.equal(expected.code, 0, expected.out);
    await pair.start();
    const [file = '', ...args] = pair.a.space.enter;
    const got = await run(file, [...args, tool, 'posix', pair.a.dir]);
    assert.equal(got.code, 0, got.out);

    const wanted = parse(expected.out);
    assert.ok(wanted.size >= least, `only ${wanted.size} outcomes`);
    for (const [name, onBare, mounted] of deviations) {
      assert.equal(wanted.get(name), onBare, `${name} on the bare file system`);
      wanted.set(name, mounted);
    }
    const outcomes = parse(got.out);
    const differences = [...wanted].flatMap(([name, outcome]) =>
      outcomes.get(name) === outcome ? [] : [`${name}: ${outcomes.get(name)}, not ${outcome}`],
    );
    assert.deepEqual(differences, []);
    t.diagnostic(`${wanted.size} outcomes`);
  });

  test('the other server has the same tree afterwards', async () => {
    await pair.a.request('close');
    await pair.b.request('close');
    const compared = await run(tool, ['compare', pair.a.dir, pair.b.dir]);
    assert.equal(compared.code, 0, compared.out);
  });
});
