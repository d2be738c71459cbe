/** What a secondary has when it becomes primary is on its disk from then on. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Duo } from './duo.ts';
import { cannotRun, Ground } from './pair.ts';

const hashOf = (path: string): string =>
  createHash('sha256').update(readFileSync(path)).digest('hex');

describe('a takeover', { skip: cannotRun }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  test('what nobody had synced outlives the power of the new primary', async () => {
    const duo = await Duo.start(ground, { disksMib: [64, 64] });
    try {
      // Applied at the secondary: in the page cache there, and nothing has asked for more.
      await duo.sh(duo.prim, 'mkdir sub; head -c 3000000 /dev/urandom >sub/new; echo a >>sub/log');
      await duo.settled();
      const hash = hashOf(join(duo.prim.seen, 'sub/new'));
      await duo.crash(duo.prim);
      await duo.takeOver();
      await duo.crash(duo.prim, 'pull');
      assert.equal(hashOf(join(duo.prim.seen, 'sub/new')), hash);
      assert.equal(readFileSync(join(duo.prim.seen, 'sub/log'), 'utf8'), 'a\n');
    } finally {
      await duo.end();
    }
  });
});
