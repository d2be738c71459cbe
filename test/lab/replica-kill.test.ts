/** kill -9 of the replica's processes on either side while fio verifies and pgbench runs: a pause, no error. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type Backing, mountBacking } from '../../src/lab/backing.ts';
import { Postgres } from '../../src/lab/databases.ts';
import { Lab } from '../../src/lab/lab.ts';
import { ReplicaPair, type ReplicaProcess } from '../../src/lab/replica.ts';
import { randomOf } from '../replica/prefix.ts';
import { firstSeed } from '../support/random.ts';
import { assertEqualTrees } from './replica-support.ts';
import { skip } from './support.ts';

const killsPerSide = 50;

const worker = /holdfast-replica.*--worker/;
const holder = /holdfast-replica(?!.*--worker)/;

/** Kills one process of a side and resolves when a new worker, or a new holder, is at work. */
async function killAndAwait(side: ReplicaProcess, match: RegExp): Promise<void> {
  const of = () => side.host.processes().filter(({ command }) => match.test(command));
  const before = of().map(({ id }) => id);
  assert.ok(side.host.kill(match) > 0, 'nothing to kill');
  const end = performance.now() + 10_000;
  while (!of().some(({ id }) => !before.includes(id))) {
    assert.ok(performance.now() < end, `nothing came back after the kill on ${side.host.name}`);
    await delay(5);
  }
  await side.reconnect();
}

describe('processes of the replica are killed', { skip, timeout: 900_000 }, () => {
  let lab: Lab;
  let backing: Backing;
  let pair: ReplicaPair;
  before(async () => {
    lab = await Lab.up({ hosts: 2, clients: 0 });
    backing = await mountBacking(lab, 'ext4');
    pair = await ReplicaPair.start(lab, {
      name: 'kill',
      dir: `${backing.base}/data`,
      stateDir: `${backing.base}/state`,
    });
  });
  after(async () => {
    await pair?.stop();
    await lab?.down();
  });

  test(`each side's worker ${killsPerSide} times, each holder, under fio and pgbench`, async () => {
    const host = lab.host('s1');
    const postgres = new Postgres(host, pair.dir);
    await postgres.start();
    await postgres.fill(1);
    const seconds = 60;
    const fio = host.exec(
      [
        'fio',
        '--name=kill',
        `--directory=${pair.dir}`,
        '--size=32m',
        '--rw=randrw',
        '--bs=4k',
        '--ioengine=psync',
        '--numjobs=2',
        '--fsync=16',
        '--verify=crc32c',
        '--verify_backlog=256',
        '--verify_fatal=1',
        '--time_based',
        `--runtime=${seconds}`,
        '--output=/run/fio.log',
      ],
      { timeoutMs: 300_000 },
    );
    const bench = postgres.bench(4, seconds);
    // Neither may be left unhandled while the kills go on.
    const both = Promise.allSettled([fio, bench]);
    const random = randomOf(firstSeed);
    for (let kill = 0; kill < 2 * killsPerSide; kill++) {
      await delay(20 + random(280));
      await killAndAwait(kill % 2 === 0 ? pair.prim : pair.second, worker);
    }
    for (const side of [pair.prim, pair.second]) await killAndAwait(side, holder);
    const failed = (await both).filter((result) => result.status === 'rejected');
    assert.deepEqual(failed, []);
    assert.ok((await bench).transactions > 0);
    await postgres.stop();
    await assertEqualTrees(pair);
  });
});
