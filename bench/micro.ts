/**
 * `npm run bench -- micro [pattern]`: the pure machines, nanoseconds to milliseconds per call with the
 * spread over the samples: building a bucket table, one step of the farm machine in the cases that
 * decide how long a failover takes, and whole simulated clusters.
 */
import { createRequire } from 'node:module';
import {
  bucketCount,
  type FarmConfig,
  type FarmEvent,
  farmInit,
  type FarmState,
  farmStep,
  nobody,
  summaryFlag,
} from '../src/core/farm.ts';
import { buildTable, type Weight } from '../src/core/table.ts';
import { runSeed } from '../src/sim/run.ts';

/** What is used of the package `benchmark`, which has no types of its own. */
interface Bench {
  readonly name: string;
  readonly hz: number;
  readonly stats: { readonly rme: number; readonly sample: readonly number[] };
}
interface Suite {
  add(name: string, run: () => void, options?: { readonly maxTime: number }): Suite;
  on(event: 'cycle', listener: (event: { readonly target: Bench }) => void): Suite;
  run(): Suite;
}
const { Suite } = createRequire(import.meta.url)('benchmark') as { Suite: new () => Suite };

const pattern = process.argv[2] ?? '';
const timing = {
  heartbeatMs: 50,
  suspectMs: 200,
  leaseMs: 150,
  agentDeadlineMs: 5000,
  drainTimeoutMs: 60_000,
};

function weights(count: number): Weight[] {
  return Array.from({ length: count }, (_unused, node) => ({ node, power: 1 }));
}

function config(me: number, count: number): FarmConfig {
  const nodes = Array.from({ length: count }, (_unused, node) => node);
  const powers = Object.fromEntries(nodes.map((node) => [node, 1]));
  return { me, nodes, groups: [{ name: 'web', powers }], timing };
}

/** A leader at rest with its followers: each takes every view at once. */
function leaderAtRest(count: number): FarmState {
  const states = Array.from({ length: count }, (_unused, me) => farmInit(config(me, count)));
  let nowMs = 1000;
  const give = (node: number, event: FarmEvent): void => {
    const state = states[node];
    if (state === undefined) return;
    const [next, effects] = farmStep(state, event);
    states[node] = next;
    for (const effect of effects) {
      if (effect.kind === 'install') {
        give(node, { kind: 'installed', nowMs, install: effect.install });
      } else if (effect.kind === 'send') {
        give(effect.to, { kind: 'message', nowMs, from: node, message: effect.message });
      } else if (effect.kind === 'announce') {
        const { flags, viewEpoch, viewMembers } = effect;
        for (const other of states.keys()) {
          if (other === node) continue;
          give(other, { kind: 'summary', nowMs, node, flags, viewEpoch, viewMembers });
        }
      }
    }
  };
  for (const me of states.keys()) {
    give(me, { kind: 'start', nowMs, ready: true, adopt: null, epochMax: 0 });
  }
  for (const me of states.keys()) {
    for (const node of states.keys()) {
      if (node === me) continue;
      give(me, { kind: 'summary', nowMs, node, flags: 3, viewEpoch: 0, viewMembers: 0n });
      give(me, { kind: 'peer', nowMs, node, reach: 'both', boot: 1n, hung: false });
    }
  }
  for (; nowMs < 4000; nowMs += 20) {
    for (const me of states.keys()) give(me, { kind: 'tick', nowMs });
  }
  const leader = states[0];
  if (leader === undefined || leader.view?.owners[0]?.includes(nobody) !== false) {
    throw new Error('the farm did not come together');
  }
  return leader;
}

const suite = new Suite();
const add = (name: string, run: () => void): void => {
  if (name.includes(pattern)) suite.add(name, run, { maxTime: 2 });
};

const free = new Uint8Array(bucketCount).fill(nobody);
const of8 = buildTable(weights(8), free);
add('table: 8 nodes from nothing', () => void buildTable(weights(8), free));
add('table: 8 nodes, one dies', () => void buildTable(weights(7), of8));
add('table: 8 nodes, nothing to do', () => void buildTable(weights(8), of8));
add('table: 64 nodes from nothing', () => void buildTable(weights(64), free));

for (const count of [3, 8]) {
  const leader = leaderAtRest(count);
  const nowMs = 5000;
  const dead = count - 1;
  const tick: FarmEvent = { kind: 'tick', nowMs: leader.nowMs };
  const summary: FarmEvent = {
    kind: 'summary',
    nowMs: leader.nowMs,
    node: 1,
    flags: summaryFlag.running | summaryFlag.ready | summaryFlag.open,
    viewEpoch: leader.view?.epoch ?? 0,
    viewMembers: leader.view?.members ?? 0n,
  };
  add(`farm: ${count} nodes, a tick`, () => void farmStep(leader, tick));
  add(`farm: ${count} nodes, a heartbeat's summary`, () => void farmStep(leader, summary));
  // The last witness agrees already: from its death to the new view and table is one step.
  const death: FarmEvent = {
    kind: 'peer',
    nowMs,
    node: dead,
    reach: 'silent',
    boot: 1n,
    hung: false,
  };
  const mask = ~(1n << BigInt(dead));
  const peers = Object.fromEntries(
    Object.entries(leader.peers).map(([node, peer]) => {
      const { status } = peer;
      if (status === null) return [node, peer];
      const { heard, both, open } = status;
      const seen = { heard: heard & mask, both: both & mask, open: open & mask };
      return [node, { ...peer, status: { ...status, ...seen } }];
    }),
  );
  const before = { ...leader, peers };
  const [after] = farmStep(before, death);
  if (after.view === leader.view) throw new Error('a death was not acted upon');
  add(`farm: ${count} nodes, death to new table at the leader`, () => void farmStep(before, death));
}

let seed = 1;
add('simulator: one seed', () => void runSeed(seed++));

suite.on('cycle', ({ target }) => {
  const us = 1e6 / target.hz;
  const sorted = [...target.stats.sample].sort((a, b) => a - b);
  const at = (part: number): string =>
    ((sorted[Math.floor(part * (sorted.length - 1))] ?? 0) * 1e6).toFixed(2);
  const spread = `p50 ${at(0.5)}  p99 ${at(0.99)}  ±${target.stats.rme.toFixed(1)} %`;
  console.log(`${target.name.padEnd(46)} ${us.toFixed(2).padStart(10)} us   ${spread}`);
});
suite.run();
