/**
 * A primary that loses its power, with writes in flight: all that it has otherwise than its peer
 * is marked in its state folder, whether it has more than the peer or lost what it had.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { Duo } from './duo.ts';
import { builtFile } from '../../src/native/load.ts';
import { cannotRun, type Ended, Ground, run, until } from './pair.ts';

/** native/test/tools/replica_marked.cc. */
const marked = builtFile('replica_marked');

/** How long the primary lives, so that generations of marks come and go meanwhile. */
const lives = [0.2, 0.7, 2.5, 4, 1.5, 3.2];

async function connected(duo: Duo): Promise<void> {
  const peer = async (): Promise<boolean> => (await duo.prim.status()).peer === 'connected';
  await until('connected', () => peer().catch(() => false));
}

/**
 * Two lives of a primary, of which the second one ends with its power; what is said of its marks.
 * What the first one makes is not new to the second one.
 */
async function lose(
  ground: Ground,
  first: (duo: Duo) => Promise<void>,
  second: (duo: Duo) => Promise<void>,
  fault?: string,
): Promise<Ended> {
  const duo = await Duo.make(ground, {
    disksMib: [600, 0],
    open: { marks: 100 },
    ...(fault === undefined ? {} : { fault }),
  });
  try {
    await Promise.all([duo.prim.launch(), duo.second.launch()]);
    await duo.openSecond();
    await duo.openPrim();
    await connected(duo);
    await first(duo);
    await duo.settled();
    await duo.prim.request('close');
    await duo.openPrim();
    await connected(duo);
    await second(duo);
    await duo.crash(duo.prim, 'pull');
    await duo.second.request('close');
    const ids = join(duo.pair.folder, 'ids');
    await cp(join(duo.second.state, 'ids'), ids);
    const { prim } = duo;
    const [file = '', ...args] = prim.space.enter;
    const command = [marked, prim.state, prim.dir, ids, duo.second.dir];
    return await run(file, [...args, ...command]);
  } finally {
    await duo.end();
  }
}

/** The same with random operations. */
function live(ground: Ground, seed: number, fault?: string): Promise<Ended> {
  const first = async (duo: Duo): Promise<void> => {
    await duo.begin(2 * seed);
    await delay(700);
    await duo.round?.stop();
  };
  const second = async (duo: Duo): Promise<void> => {
    await duo.begin(2 * seed + 1);
    await delay(1000 * (lives[seed % lives.length] ?? 1));
  };
  return lose(ground, first, second, fault);
}

describe('marks', { skip: cannotRun }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  test('what differs after a loss of power is marked', async (t) => {
    let differences = 0;
    for (let seed = 1; seed <= lives.length; seed++) {
      const { code, out } = await live(ground, seed);
      t.diagnostic(`seed ${seed}: ${out.trim().split('\n').at(-1)}`);
      assert.equal(code, 0, `seed ${seed}: ${out}`);
      differences += Number(/^(\d+) differences/m.exec(out)?.[1]);
    }
    assert.ok(differences > 0, 'nothing differed');
  });

  test('no mark goes before what it covers is on the local disk', async (t) => {
    const first = async (duo: Duo): Promise<void> => {
      await duo.sh(duo.prim, 'head -c 2M /dev/zero > x; touch $(seq 300); sync -f .');
    };
    const second = async (duo: Duo): Promise<void> => {
      // Without fsync: it is in the page cache here, and in the journal of the peer.
      await duo.sh(duo.prim, 'printf new | dd of=x conv=notrunc bs=3 seek=400000 status=none');
      await duo.sh(duo.prim, 'chmod 600 $(seq 300)');
      assert.ok((await duo.figure(duo.prim, 'mark_writes')) > 300);
      const one = async (): Promise<boolean> =>
        (await duo.figure(duo.prim, 'mark_generations')) === 1;
      await until('old generations are gone', one);
      // Gone for good; fsync of a folder takes no data of files along.
      await duo.sh(duo.prim, `sync ${duo.prim.state}`);
    };
    const { code, out } = await lose(ground, first, second);
    t.diagnostic(out.trim());
    assert.equal(code, 0, out);
  });

  test('mark_after_write is seen', async (t) => {
    let seen = '';
    let seed = 1;
    for (; seed <= 12 && seen === ''; seed++) {
      const { code, out } = await live(ground, seed, 'mark_after_write');
      if (code === 1) seen = out;
    }
    t.diagnostic(`after ${seed - 1} runs: ${seen.slice(0, 200)}`);
    assert.match(seen, /is not marked/);
  });
});
