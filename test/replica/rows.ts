/** What the tests of the rows share: trees of a known size, changes of a known size, figures. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, open, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Duo, type DuoOptions, Duo as DuoClass } from './duo.ts';
import type { Ground, Side } from './pair.ts';
import { randomOf } from './prefix.ts';

export const mib = 1024 * 1024;
const block = 4096;

/** Runs `body` with a duo, and takes it away whatever happens. */
export async function withDuo(
  ground: Ground,
  options: DuoOptions,
  body: (duo: Duo) => Promise<void>,
): Promise<void> {
  const duo = await DuoClass.start(ground, options);
  try {
    await body(duo);
  } finally {
    await duo.end();
  }
}

/** Fills `folder` with `count` files of one MiB. */
export async function fill(folder: string, count: number): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (let i = 0; i < count; i++) await writeFile(join(folder, `f${i}`), randomBytes(mib));
}

/** Overwrites `blocks` different blocks of 4 KiB of the files that `fill` made; bytes changed. */
export async function change(
  folder: string,
  count: number,
  blocks: number,
  seed: number,
): Promise<number> {
  const random = randomOf(seed);
  const chosen = new Set<number>();
  while (chosen.size < blocks) chosen.add(random((count * mib) / block));
  for (let i = 0; i < count; i++) {
    const places = [...chosen].filter((at) => Math.floor((at * block) / mib) === i);
    const file = await open(join(folder, `f${i}`), 'r+');
    for (const at of places) await file.write(randomBytes(block), 0, block, (at * block) % mib);
    await file.close();
  }
  return blocks * block;
}

/** Bytes that a process has read, from whatever it be (proc(5), rchar). */
export function bytesRead(pid: number): number {
  const [, bytes = 'NaN'] = /^rchar: (\d+)/.exec(readFileSync(`/proc/${pid}/io`, 'latin1')) ?? [];
  return Number(bytes);
}

export interface Quarantined {
  readonly path: string;
  readonly stored?: string;
  readonly size: number;
  readonly reason: 'rolled_back' | 'foreign' | 'overwritten';
}

/** The lines of all manifests in a server's quarantine. */
export async function quarantined(side: Side): Promise<readonly Quarantined[]> {
  const folder = join(side.seen, '.holdfast-quarantine');
  const found: Quarantined[] = [];
  for (const name of await readdir(folder).catch(() => [])) {
    const text = await readFile(join(folder, name, 'manifest.jsonl'), 'utf8');
    found.push(...text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line)])));
  }
  return found;
}

/** All closed in order: what is then in the directories themselves is equal. */
export async function closedAndEqual(duo: Duo): Promise<void> {
  for (const copy of duo.distant) await copy.inSync();
  await duo.prim.request('close');
  await duo.second.request('close');
  await duo.assertEqual();
  for (const { side } of duo.distant) {
    await side.request('close');
    await duo.assertEqual(duo.prim.seen, side.seen);
  }
}
