/** Rows of the fault table that happen to whole servers. */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { module } from '../pair-support.ts';
import { aloneForAMoment, type Scenario } from './scenario.ts';
import type { World } from './world.ts';

const takenOver = 'the other server takes over; this one follows when it is back';

/** The secondary is left behind, then the primary loses its power, and the stale one is alone. */
async function staleAlone(world: World): Promise<void> {
  await world.lab.cut(world.primary.name, world.secondary.name);
  await world.alone();
  await world.power(world.primary);
  await world.lab.heal();
  await world.says(world.secondary, new RegExp(`waits for ${world.primary.name}`));
  await delay(1000);
  assert.doesNotMatch(await world.pair.shown(world.secondary), /PRIM|ALONE/);
}

async function staleReturns(world: World): Promise<void> {
  await world.power(world.secondary);
  await world.alone();
  await world.power(world.primary);
  await world.boot(world.secondary);
  await world.says(world.secondary, new RegExp(`waits for ${world.primary.name}`));
  await delay(1000);
  assert.doesNotMatch(await world.pair.shown(world.secondary), /PRIM|ALONE/);
}

async function together(world: World): Promise<void> {
  await Promise.all([world.primary.power(), world.secondary.power()]);
  await Promise.all([world.boot(world.primary), world.boot(world.secondary)]);
  await world.served();
}

async function shutDown(world: World): Promise<void> {
  const host = world.primary;
  const daemon = world.pair.cluster.daemons.get(host.name);
  assert.equal(daemon?.kill('SIGTERM'), true);
  await world.moves();
  await daemon?.ended;
  await host.power();
  await world.boot(host);
}

export const powerRows: readonly Scenario[] = [
  {
    row: 8,
    title: 'the plug of the primary is pulled',
    expected: takenOver,
    act: async (world) => {
      await world.power(world.primary);
      await world.moves();
    },
  },
  {
    row: 8,
    title: 'the plug of the other server is pulled',
    expected: 'the primary goes on alone by a new epoch',
    isLong: true,
    act: async (world) => {
      await world.power(world.secondary);
      await world.alone();
    },
  },
  {
    row: 9,
    title: 'the primary is shut down in order (SIGTERM) and switched on again',
    expected: 'it stops in order, the other server takes over at once; this one follows',
    act: shutDown,
  },
  {
    row: 10,
    title: 'both plugs are pulled at once, both servers are switched on at once',
    expected: 'the first that was in sync and reaches the witness serves; no divergence',
    act: together,
  },
  {
    row: 11,
    title: 'both lose their power, one after the other; only the first comes back',
    expected: 'it refuses, and says for whom it waits; then all is well',
    act: staleReturns,
  },
  {
    row: 12,
    title: 'the primary is alone, since the two are cut; it loses its power, the cut ends',
    expected: 'the other one does not take over, and says for whom it waits',
    isLong: true,
    act: staleAlone,
  },
  {
    row: 49,
    title: 'the primary loses its power while the other server is brought up to date',
    expected: 'the target does not take over; when the source is back all is well',
    act: async (world) => {
      await world.power(world.secondary);
      await world.alone();
      const argv = [
        'sh',
        '-c',
        'head -c 20000000 /dev/urandom >/run/data/while; sync /run/data/while',
      ];
      await world.primary.exec(argv);
      world.undo(() => world.pair.sh(world.primary, 'rm -f /run/data/while'));
      await world.boot(world.secondary);
      await world.pair.becomes(world.secondary, 'SECOND Transient', 60_000);
      await world.primary.power();
      await world.boot(world.primary);
      await world.served();
    },
  },
  {
    row: 51,
    title: 'every process of the primary stands still for 60 s, as a virtual machine may',
    expected: takenOver,
    isLong: true,
    act: async (world) => {
      await world.lab.pause(world.primary.name);
      await world.moves();
      await delay(60_000);
    },
  },
  {
    row: 51,
    title: 'every process of the primary stands still for 0.5 s',
    expected: aloneForAMoment,
    act: async (world) => {
      await world.pausedFor(500);
      await world.keeps();
    },
  },
  {
    row: 56,
    title: 'both servers are stopped in order, and both are started at once',
    expected: 'one primary',
    act: async (world) => {
      const clients = [world.secondary, world.primary].map((host) =>
        world.pair.cluster.client(host),
      );
      for (const client of clients) await client.command(module, 'stop');
      await Promise.all(clients.map((client) => client.command(module, 'start')));
      await world.served();
    },
  },
];
