/**
 * Rows of the fault table that happen to wall clocks. All hosts of a lab share the kernel's, so what runs
 * on a server asks a library between (test/fixtures/clock/shift.cc), which adds what a file says.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Host } from '../../../src/lab/host.ts';
import { repoRoot } from '../../../src/lab/tool.ts';
import type { Scenario } from './scenario.ts';
import type { World, WorldOptions } from './world.ts';

const source = join(repoRoot, 'test/fixtures/clock/shift.cc');
const hourMs = 3_600_000;
const strobeMs = 288_000;

/** Makes the library; what puts it in, and what removes it. */
function library(): {
  readonly env: Readonly<Record<string, string>>;
  readonly remove: () => void;
} {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-clock-'));
  const path = join(folder, 'shift.so');
  execFileSync('g++', ['-std=c++20', '-O2', '-shared', '-fPIC', '-o', path, source]);
  return {
    env: { LD_PRELOAD: path },
    remove: () => rmSync(folder, { recursive: true }),
  };
}

export const clockWorld: WorldOptions = { preload: library };

/** The wall clock of a server is off by so much from now on. */
function shift(host: Host, ms: number): void {
  const path = host.path('/run/clock-shift');
  if (!host.exists('/run/clock-shift')) host.writeFile('/run/clock-shift', new Uint8Array(8));
  const value = Buffer.alloc(8);
  value.writeBigInt64LE(BigInt(ms) * 1_000_000n);
  // In its place, where it is mapped.
  const file = openSync(path, 'r+');
  writeSync(file, value, 0, 8, 0);
  closeSync(file);
}

/** It jumps; the servers lose each other and connect anew, by certificates that have their times. */
async function jumps(world: World, ms: number): Promise<void> {
  const host = world.primary;
  shift(host, ms);
  world.undo(async () => shift(host, 0));
  await delay(1500);
  await world.stays();
  const ids = await world.lab.cut(world.primary.name, world.secondary.name);
  await world.alone();
  for (const id of ids) await world.lab.heal(id);
  await world.pair.settled();
}

async function strobes(world: World): Promise<void> {
  const hosts = [world.primary, world.secondary];
  world.undo(async () => hosts.forEach((host) => shift(host, 0)));
  const endMs = performance.now() + 4000;
  for (let i = 0; performance.now() < endMs; i++) {
    for (const host of hosts) shift(host, i % 2 === 0 ? strobeMs : -strobeMs);
    await delay(20);
  }
  await world.stays();
}

export const clockRows: readonly Scenario[] = [
  {
    row: 34,
    title:
      'the wall clock of the primary jumps ahead by 1 h; then the servers lose each other for a while',
    expected: 'the jump does nothing; the primary goes on alone, and they find each other again',
    act: (world) => jumps(world, hourMs),
  },
  {
    row: 34,
    title:
      'the wall clock of the primary jumps back by 1 h; then the servers lose each other for a while',
    expected: 'the jump does nothing; the primary goes on alone, and they find each other again',
    isLong: true,
    act: (world) => jumps(world, -hourMs),
  },
  {
    row: 34,
    title: 'the wall clocks of both jump by ± 288 s each 20 ms, for 4 s',
    expected: 'nothing moves',
    act: strobes,
  },
];
