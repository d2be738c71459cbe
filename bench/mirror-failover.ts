/**
 * `npm run bench -- mirror-failover [--rounds N | --quick] [--profiles A,B] [--json FILE]`: how long clients
 * go without an answer when the primary of a mirror loses its power, when its daemon is killed, and in a
 * swap, beside keepalived with the same time of detection, interleaved in one run.
 * docs/reference/benchmarks.md says what each figure includes.
 */
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { mirrorProfiles } from '../src/core/mirror-timing.ts';
import { environment, progress } from './environment.ts';
import { keepalivedVersion } from './failover/keepalived.ts';
import { type Round, type Trigger, triggers } from './takeover/figures.ts';
import { HoldfastPair, type Profile } from './takeover/holdfast.ts';
import { KeepalivedPair } from './takeover/keepalived.ts';
import { type Contestant, roundOf } from './takeover/rig.ts';
import { print, printTargets, type Row, rowsOf } from './takeover/tables.ts';

const profiles = ['default', 'fast'] as const satisfies readonly Profile[];

interface Options {
  readonly rounds: number;
  readonly profiles: readonly Profile[];
  readonly json: string | null;
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string' },
      quick: { type: 'boolean', default: false },
      profiles: { type: 'string' },
      json: { type: 'string' },
    },
  });
  const rounds = Number(values.rounds ?? (values.quick ? 5 : 20));
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 1000) {
    throw new Error('--rounds is a number from 1 to 1000');
  }
  const wanted = values.profiles?.split(',') ?? profiles;
  const chosen = profiles.filter((profile) => wanted.includes(profile));
  if (chosen.length === 0 || chosen.length !== wanted.length) {
    throw new Error(`--profiles is one or more of ${profiles.join()}`);
  }
  return { rounds, profiles: chosen, json: values.json ?? null };
}

/**
 * keepalived takes a master as lost after three intervals and its skew (RFC 5798, section 6.1), here a
 * hundredth of one: the interval, of which VRRPv3 knows whole hundredths of a second, that comes next
 * below the mirror's silence.
 */
function advertOf(profile: Profile): number {
  return 10 * Math.floor(mirrorProfiles[profile].suspectMs / 30);
}

const labs: Contestant[] = [];

async function downAll(): Promise<void> {
  await Promise.all(labs.splice(0).map(({ lab }) => lab.down()));
}

/** Both with the same time of detection, one fault of each in turn: the machine's load is the same. */
async function run(profile: Profile, rounds: number): Promise<readonly Row[]> {
  const advertMs = advertOf(profile);
  progress(`${profile}: building both labs`);
  const sides: { title: string; isHoldfast: boolean; contestant: Contestant; found: Round[] }[] =
    [];
  for (const isHoldfast of [true, false]) {
    const contestant = isHoldfast
      ? await HoldfastPair.up(profile)
      : await KeepalivedPair.up(advertMs);
    labs.push(contestant);
    const title = isHoldfast ? `Holdfast ${profile}` : `keepalived ${advertMs} ms`;
    sides.push({ title, isHoldfast, contestant, found: [] });
  }
  for (let number = 1; number <= rounds; number++) {
    for (const trigger of triggers) {
      for (const { title, contestant, found } of sides) {
        const round = await failOnce(contestant, trigger);
        found.push(round);
        const { victim, gapMs } = round;
        progress(`${title}: ${trigger} ${number} of ${rounds}, ${victim}: ${gapMs.toFixed(1)} ms`);
      }
    }
  }
  await downAll();
  return sides.flatMap(({ title, isHoldfast, found }) => rowsOf(title, profile, isHoldfast, found));
}

async function failOnce(contestant: Contestant, trigger: Trigger): Promise<Round> {
  const round = await roundOf(contestant, trigger);
  await contestant.restore(contestant.lab.host(round.victim), trigger);
  return round;
}

async function main(): Promise<void> {
  const { rounds, profiles: chosen, json } = readOptions();
  if (process.getuid?.() !== 0) {
    throw new Error('bench mirror-failover: needs root (network namespaces, BPF, FUSE)');
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void downAll().finally(() => process.exit(130)));
  }
  const peer = keepalivedVersion();
  const loadAtStart = os.loadavg()[0] ?? 0;
  const rows: Row[] = [];
  try {
    for (const profile of chosen) rows.push(...(await run(profile, rounds)));
  } finally {
    await downAll();
    progress('');
  }
  const order = 'no seed: faults and contestants in turn; no warm-up: all rounds count';
  const facts = environment(loadAtStart, peer, order);
  console.log(
    `mirror-failover: longest wait of any client while the primary changes, ms; ${rounds} rounds each\n`,
  );
  print(rows);
  printTargets(rows);
  console.log('');
  for (const [name, value] of Object.entries(facts)) console.log(`${name.padEnd(12)}${value}`);
  if (json !== null) {
    writeFileSync(json, `${JSON.stringify({ bench: 'mirror-failover', facts, rows }, null, 2)}\n`);
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = 1;
});
