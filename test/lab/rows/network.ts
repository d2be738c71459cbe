/** Rows of the fault table that happen to networks. Both servers are on two; the witness too. */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { dir } from '../pair-support.ts';
import { eventually } from '../support.ts';
import type { Scenario } from './scenario.ts';
import type { World } from './world.ts';

const goesOn = 'nothing moves';
const noTakeover = 'nobody takes over';
const wins = 'the primary goes on alone; the other one says why it does not take over';
const takenOver =
  'its address falls silent, the other server takes over; this one follows afterwards';

/** The three that decide: no frame of a client is touched. */
const others = (world: World) => [world.secondary, world.lab.host('wit')];

const cutBoth = async (world: World, way: 'both' | 'to' | 'from' = 'both'): Promise<void> => {
  await world.lab.cut(world.primary.name, world.secondary.name, way);
};

async function mereCut(world: World): Promise<void> {
  await cutBoth(world);
  await world.alone();
  await world.says(world.secondary, /not taking over .*not up to date/);
  assert.match(await world.pair.shown(world.secondary), /SECOND NotReady/);
}

async function isolated(world: World): Promise<void> {
  await world.lab.cutAll(world.primary.name);
  await world.moves();
  await world.pair.becomes(world.primary, 'WAIT NotReady', 60_000);
}

async function lossOf(world: World, percent: number, ms: number): Promise<void> {
  const ends = [world.primary, world.secondary, world.lab.host('wit')];
  for (const { name } of ends.slice(0, 2)) await world.lab.loss(name, percent);
  await delay(ms);
  // Heartbeats get through in time; what TCP makes of it is another matter.
  await world.lab.heal();
  await world.served();
}

/** All frames of the primary are lost for these times, with pauses between them. */
async function bursts(world: World, burstMs: number): Promise<void> {
  for (let i = 0; i < 5; i++) {
    const ids = await world.lab.cut(world.primary.name, world.secondary.name);
    await delay(burstMs);
    for (const id of ids) await world.lab.heal(id);
    await delay(700);
  }
  await world.keeps();
}

async function delayed(world: World, delayMs: number, jitterMs: number): Promise<void> {
  for (const { name } of [world.primary, world.secondary]) {
    await world.lab.delay(name, delayMs, { jitterMs });
  }
  await delay(3000);
  await world.served();
}

/** Large writes on the primary while something is wrong with the way of the data. */
async function bulk(world: World, mib: number): Promise<void> {
  const script = `dd if=/dev/zero of=${dir}/bulk bs=64k count=${16 * mib} 2>/dev/null; rm -f ${dir}/bulk`;
  const process = await world.primary.spawn(['sh', '-c', script]);
  world.undo(() => process.ended);
}

async function blackHole(world: World): Promise<void> {
  await world.frames(world.primary, others(world), 'meta length > 1400 drop');
  await bulk(world, 1);
  await world.alone();
}

async function narrow(world: World): Promise<void> {
  // A megabit, for all that the two say to each other.
  const rule = 'limit rate over 125 kbytes/second burst 32 kbytes drop';
  await world.frames(world.primary, [world.secondary], rule);
  await bulk(world, 1);
  await delay(6000);
  await world.served(world.primary);
}

/** Changed heartbeats arrive, since UDP over IPv4 may go without a checksum; TCP notices by its own. */
async function corrupt(world: World): Promise<void> {
  const rule =
    'meta l4proto udp numgen random mod 100 < 10 @th,48,16 set 0 @th,160,32 set 0x68667821';
  const stream = 'meta l4proto tcp numgen random mod 100 < 1 @th,320,32 set 0x68667821';
  await world.frames(world.primary, others(world), rule);
  await world.frames(world.secondary, [world.primary, world.lab.host('wit')], stream);
  const refused = async (): Promise<number> => {
    const page = await world.pair.cluster.client(world.secondary).metrics();
    const found = page.matchAll(
      /^holdfast_heartbeat_total\{what="(?:malformed|foreign|bad_mac)"\} (\d+)$/gm,
    );
    return [...found].reduce((sum, [, count]) => sum + Number(count), 0);
  };
  const before = await refused();
  await eventually('changed heartbeats to be refused', async () =>
    (await refused()) > before + 10 ? true : null,
  );
  await world.keeps();
}

async function switchReboot(world: World, ms: number): Promise<void> {
  for (const { name } of [world.primary, world.secondary, world.lab.host('wit')]) {
    await world.lab.unplug(name);
  }
  await eventually('both to be without service', async () => {
    const shown = await Promise.all(
      [world.primary, world.secondary].map((host) => world.pair.shown(host)),
    );
    return shown.every((one) => /NotReady|Transient/.test(one)) ? true : null;
  });
  await delay(ms);
  await world.lab.heal();
  await world.served();
}

async function flapping(world: World, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    await world.lab.flap(world.primary.name, 500);
    await delay(500);
  }
  await world.served();
}

export const networkRows: readonly Scenario[] = [
  {
    row: 17,
    title: 'the servers are cut off from each other, both reach the witness',
    expected: wins,
    act: mereCut,
  },
  { row: 18, title: 'the primary is cut off from everybody', expected: takenOver, act: isolated },
  {
    row: 19,
    title: 'the servers are cut off from each other, and the primary from the witness',
    expected: takenOver,
    act: async (world) => {
      await cutBoth(world);
      await world.lab.cut(world.primary.name, 'wit');
      await world.moves();
    },
  },
  {
    row: 20,
    title: 'the cable of one of two networks of the primary is pulled, the one without the data',
    expected: `${goesOn}; an alert`,
    act: async (world) => {
      await world.lab.unplug(world.secondary.name, 0);
      await delay(3000);
      await world.served(world.primary);
    },
  },
  {
    row: 20,
    title: 'the cable of the network that carries the data is pulled',
    expected: 'the primary goes on alone by a new epoch; nobody takes over',
    act: async (world) => {
      await world.lab.unplug(world.primary.name, 1);
      await world.alone();
    },
  },
  {
    row: 21,
    title: 'frames from the primary to the other server are lost',
    expected: 'one of the two goes on, by one decision of the register',
    act: async (world) => {
      await cutBoth(world, 'to');
      await delay(4000);
      await world.served();
    },
  },
  {
    row: 21,
    title: 'frames from the other server to the primary are lost',
    expected: 'one of the two goes on, by one decision of the register',
    isLong: true,
    act: async (world) => {
      await cutBoth(world, 'from');
      await delay(4000);
      await world.served();
    },
  },
  ...[1, 5, 10].map(
    (percent): Scenario => ({
      row: 22,
      title: `${percent} % of the frames of both servers are lost, on both networks, for 5 s`,
      expected: noTakeover,
      act: async (world) => {
        await lossOf(world, percent, 5000);
        await world.keeps();
      },
      ...(percent === 10 ? {} : { isLong: true }),
    }),
  ),
  ...[20, 30].map(
    (percent): Scenario => ({
      row: 22,
      title: `${percent} % of the frames of both servers are lost, on both networks, for 5 s`,
      expected: 'what moves, moves in order',
      act: (world) => lossOf(world, percent, 5000),
      isLong: true,
    }),
  ),
  {
    row: 23,
    title: 'all frames between the servers are lost for 250 ms, five times',
    expected: noTakeover,
    isLong: true,
    act: (world) => bursts(world, 250),
  },
  {
    row: 23,
    title: 'all frames between the servers are lost for 500 ms, five times',
    expected: noTakeover,
    act: (world) => bursts(world, 500),
  },
  ...[
    [50, 0],
    [200, 0],
    [200, 150],
    [800, 300],
  ].map(
    ([ms = 0, jitter = 0]): Scenario => ({
      row: 24,
      title: `both servers are ${ms} ± ${jitter} ms away from everybody and ${2 * ms} from each other`,
      expected: ms > 500 ? 'what moves, moves in order' : noTakeover,
      act: async (world) => {
        await world.clients(10_000);
        world.undo(() => world.clients());
        await delayed(world, ms, jitter);
        if (ms <= 500) await world.keeps();
      },
      ...(ms === 200 && jitter === 0 ? {} : { isLong: true }),
    }),
  ),
  {
    row: 25,
    title: 'a quarter of all frames comes twice, and out of order by up to 20 ms',
    expected: noTakeover,
    act: async (world) => {
      for (const { name } of [world.primary, world.secondary]) {
        await world.lab.duplicate(name, 25);
        await world.lab.delay(name, 20, { jitterMs: 20 });
      }
      await delay(4000);
      await world.keeps();
    },
  },
  {
    row: 26,
    title: '10 % of the heartbeats of the primary and 1 % of the segments to it are changed',
    expected: 'what was changed is refused and counted; nothing moves',
    act: corrupt,
  },
  {
    row: 27,
    title: 'frames of the primary above 1400 bytes vanish; heartbeats pass',
    expected: 'the replication stalls, the primary goes on alone',
    act: blackHole,
  },
  {
    row: 28,
    title: 'what the primary sends to the other server is held to 1 Mbit/s, under bulk writes',
    expected: 'writes are slower, or the primary goes on alone; nobody takes over',
    isLong: true,
    act: narrow,
  },
  {
    row: 29,
    title: 'all cables are dead for some seconds, as when the switch starts again',
    expected: 'nobody is served meanwhile; one primary afterwards',
    act: (world) => switchReboot(world, 4000),
  },
  {
    row: 29,
    title: 'all cables are dead for 40 s, as when the switch starts again',
    expected: 'nobody is served meanwhile; one primary afterwards',
    isLong: true,
    act: (world) => switchReboot(world, 40_000),
  },
  {
    row: 30,
    title: 'the cables of the primary go down and up each second, five times',
    expected: 'what moves, moves in order; one primary afterwards',
    act: (world) => flapping(world, 5),
  },
];
