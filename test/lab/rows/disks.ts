/**
 * Rows of the fault table that happen to disks. Each server's data is on an ext4 of its own: what lies
 * beside the replicated directory fills it, it can stand still (fsfreeze), and be shut down, which
 * throws away what is not on the disk and makes everything an error (EIO) until it is mounted anew.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Host } from '../../../src/lab/host.ts';
import { builtFile } from '../../../src/native/load.ts';
import { dir, module, type Pair } from '../pair-support.ts';
import { eventually } from '../support.ts';
import type { Scenario } from './scenario.ts';
import type { World, WorldOptions } from './world.ts';

/** Where the ext4 is; `data` in it is the replicated directory. */
const disk = '/run/disk';
const timeoutMs = 60_000;

async function mountDisk(pair: Pair, host: Host): Promise<void> {
  const image = join(pair.lab.dir, `${host.name}.ext4`);
  const script = `
    set -e
    mkdir -p ${disk} ${dir}
    if [ ! -e ${image} ]; then
      truncate -s 64M ${image}
      mkfs.ext4 -q -b 4096 -m 0 -E lazy_itable_init=0,lazy_journal_init=0 ${image}
    fi
    mount -o loop ${image} ${disk}
    mkdir -p ${disk}/data
    mount --bind ${disk}/data ${dir}`;
  await host.exec(['sh', '-c', script], { timeoutMs });
}

export const diskWorld: WorldOptions = { mount: mountDisk };

/** Nothing more gets to the disk of a server, and everything on it fails. */
async function pull(host: Host): Promise<void> {
  await host.exec([builtFile('replica_tool'), 'pull', disk]);
}

/** A server is switched off and on: its disk is mounted anew. */
async function cycle(world: World, host: Host): Promise<void> {
  await host.power();
  await world.boot(host);
}

async function broken(world: World, host: Host): Promise<void> {
  await pull(host);
  world.undo(() => cycle(world, host));
}

async function fill(world: World, host: Host): Promise<void> {
  const file = `${disk}/ballast`;
  await host.exec(
    ['sh', '-c', `fallocate -l 60M ${file} 2>/dev/null || cat /dev/zero >${file} || true`],
    {
      check: false,
    },
  );
  await host.exec(['sh', '-c', `cat /dev/zero >>${file}; sync -f ${disk}`], { check: false });
  world.undo(() => host.exec(['rm', '-f', file], { timeoutMs }));
}

async function primaryFull(world: World): Promise<void> {
  await fill(world, world.primary);
  const script = `dd if=/dev/zero of=${dir}/more bs=64k count=32 conv=fsync 2>&1; rm -f ${dir}/more`;
  const { stdout } = await world.pair.sh(world.primary, script);
  assert.match(stdout, /No space left/);
}

async function secondaryFull(world: World): Promise<void> {
  const host = world.secondary;
  await fill(world, host);
  const script = `dd if=/dev/zero of=${dir}/more bs=64k count=32 conv=fsync 2>&1; rm -f ${dir}/more`;
  const done = world.pair.sh(world.primary, script);
  await world.alone();
  await done;
  // A copy that has failed is left alone until an operator, or a start, says that it is mended.
  world.undo(() => cycle(world, host));
}

async function frozen(world: World, host: Host, ms: number): Promise<void> {
  await host.exec(['fsfreeze', '-f', disk], { timeoutMs });
  try {
    await delay(ms);
  } finally {
    await host.exec(['fsfreeze', '-u', disk], { timeoutMs });
  }
  await world.served();
}

/** Both disks lose what is not on them, and both servers their power. */
async function bothPulled(world: World): Promise<void> {
  const hosts = [world.primary, world.secondary];
  await Promise.all(
    hosts.map(async (host) => {
      await pull(host);
      await host.power();
    }),
  );
  await Promise.all(hosts.map((host) => world.boot(host)));
  await world.served();
}

async function primaryPulled(world: World): Promise<void> {
  await pull(world.primary);
  await world.power(world.primary);
  await world.moves();
}

/** A byte of the copy is another one; verify finds it, and the copy is made anew from the primary. */
async function rotten(world: World): Promise<void> {
  const { primary, secondary } = world;
  const client = world.pair.cluster.client(primary);
  const other = world.pair.cluster.client(secondary);
  // A file that is written meanwhile may count.
  const equal = () =>
    eventually('both copies to be equal', async () =>
      (await client.verify(module)).differing === 0 ? true : null,
    );
  await primary.exec(['sh', '-c', `head -c 300000 /dev/zero >${dir}/rot; sync ${dir}/rot`]);
  await equal();
  const script = `printf x | dd of=${disk}/data/rot bs=1 seek=123456 conv=notrunc,fsync 2>/dev/null`;
  await secondary.exec(['sh', '-c', script]);
  await eventually('the byte to be found', async () => {
    const { differences } = await client.verify(module);
    return differences.some((one) => /\brot\b/.test(JSON.stringify(one))) ? true : null;
  });
  await other.command(module, 'stop');
  await other.second(module, 'fullsync');
  await world.pair.settled();
  await equal();
}

/** The engine's own files are gone: the server does not guess what its directory is. */
async function forgotten(world: World): Promise<void> {
  const host = world.secondary;
  const client = world.pair.cluster.client(host);
  await client.command(module, 'stop');
  await world.alone();
  await host.exec(['sh', '-c', `rm -r /var/lib/holdfast/modules/${module}/replica/*`]);
  const started = client.command(module, 'start').catch(() => undefined);
  await world.says(host, /is not empty: a new secondary begins with empty directories/);
  await client.command(module, 'stop');
  await started;
  await client.second(module, 'fullsync');
}

export const diskRows: readonly Scenario[] = [
  {
    row: 39,
    title: 'the data disk of the primary is full',
    expected: 'the application is told (ENOSPC); nothing is lost',
    act: primaryFull,
  },
  {
    row: 39,
    title: 'the data disk of the secondary is full',
    expected:
      'the primary goes on alone; the other one follows once there is room and it is started anew',
    act: secondaryFull,
  },
  {
    row: 40,
    title: 'everything on the data disk of the primary fails (EIO)',
    expected: 'it ends its service, the other server takes over',
    act: async (world) => {
      await broken(world, world.primary);
      await world.moves();
    },
  },
  {
    row: 41,
    title: 'everything on the data disk of the secondary fails (EIO)',
    expected: 'the primary goes on alone; the other one is brought up to date when it is mended',
    act: async (world) => {
      await broken(world, world.secondary);
      await world.alone();
    },
  },
  ...[5, 30].map(
    (seconds): Scenario => ({
      row: 42,
      title: `the data disk of the secondary stands still for ${seconds} s`,
      expected: 'writes go on: its journal takes them, or the primary goes on alone',
      act: (world) => frozen(world, world.secondary, seconds * 1000),
      ...(seconds === 30 ? { isLong: true } : {}),
    }),
  ),
  {
    row: 43,
    title: 'the data disk of the primary stands still for 4 s',
    expected: 'writes wait for the disk',
    act: (world) => frozen(world, world.primary, 4000),
  },
  {
    row: 45,
    title: 'the disk of the primary loses what was not synced, and the primary its power',
    expected: 'the other server takes over, with all that was acknowledged; this one follows',
    act: primaryPulled,
  },
  {
    row: 45,
    title: 'the disks of both lose what was not synced, and both servers their power',
    expected: 'they come back with all that was acknowledged',
    isLong: true,
    act: bothPulled,
  },
  {
    row: 46,
    title: 'a byte of the secondary’s copy is changed on its disk',
    expected: '`verify` finds it; `second fullsync` makes the copy equal',
    act: rotten,
  },
  {
    row: 47,
    title: 'the engine’s own files on the secondary are gone when it starts',
    expected:
      'it refuses its directory, and says so; `second fullsync` compares all and makes it equal',
    act: forgotten,
  },
];
