/** One seed: a world, its faults, the safety checks on the way and liveness at the end. */
import { farmRules, type FarmRules } from '../core/farm-rules.ts';
import type { FarmConfig, FarmTiming } from '../core/farm.ts';
import { type FaultKind, faultKinds, planFault } from './faults.ts';
import { allGuards, type KeeperGuards } from './keeper.ts';
import { Chance, type SeedResult, Violation } from './kit.ts';
import { type NetworkOptions, World } from './world.ts';

export interface SimResult extends SeedResult {
  /** World.longestNearMs and longestFarMs. */
  readonly longestNearMs: number;
  readonly longestFarMs: number;
}

export interface SimOptions {
  readonly rules?: FarmRules;
  readonly guards?: Partial<KeeperGuards>;
  /** Only these faults, where given. */
  readonly faults?: readonly FaultKind[];
}

/** After the last fault the farm must be whole within this: a peer without channel expires. */
export const calmMs = 8000;

const timing: FarmTiming = {
  heartbeatMs: 50,
  suspectMs: 200,
  leaseMs: 150,
  agentDeadlineMs: 2000,
  drainTimeoutMs: 30000,
};
const calmNetwork: NetworkOptions = {
  loss: 0,
  duplicate: 0,
  delayMs: 1,
  slow: 0,
  slowMs: 0,
  skew: 1,
};

export function runSeed(seed: number, options: SimOptions = {}): SimResult {
  const world = makeWorld(seed, options);
  try {
    play(world, options);
    return result(seed, world, null, 'ok');
  } catch (error) {
    if (error instanceof Violation) return result(seed, world, error.rule, error.message);
    throw error;
  }
}

function result(seed: number, world: World, rule: string | null, text: string): SimResult {
  return {
    seed,
    ok: rule === null,
    rule,
    text: `${text} at ${world.nowMs.toFixed(1)} ms`,
    events: world.events,
    steps: world.steps,
    hash: world.trace.hash,
    virtualMs: world.nowMs,
    longestNearMs: world.checks.longestNearMs,
    longestFarMs: world.checks.longestFarMs,
    trace: world.trace.last(),
  };
}

function makeWorld(seed: number, options: SimOptions): World {
  const draw = new Chance(seed ^ 0x5bd1e995);
  const count = draw.pick([2, 2, 3, 3, 3, 4, 5]);
  const groupCount = draw.is(0.2) ? 2 : 1;
  const drainTimeoutMs = draw.is(0.1) ? 500 : timing.drainTimeoutMs;
  const groups = Array.from({ length: groupCount }, (_unused, g) => ({
    name: `g${g}`,
    powers: Object.fromEntries(
      Array.from({ length: count }, (_u, node) => [node, draw.pick([1, 1, 1, 2, 64])]),
    ),
  }));
  const network: NetworkOptions = {
    loss: draw.is(0.4) ? draw.between(0, 0.3) : 0,
    duplicate: draw.is(0.3) ? draw.between(0, 0.3) : 0,
    delayMs: draw.pick([0.3, 1, 1, 5]),
    slow: draw.is(0.3) ? draw.between(0, 0.2) : 0,
    slowMs: draw.between(5, 120),
    skew: draw.is(0.7) ? 1 : 0,
  };
  const nodes = Array.from({ length: count }, (_unused, node) => node);
  const makeConfig = (me: number): FarmConfig => ({
    me,
    nodes,
    groups,
    timing: { ...timing, drainTimeoutMs },
  });
  const rules = options.rules ?? farmRules;
  const world = new World(seed, count, makeConfig, rules, network, {
    ...allGuards,
    ...options.guards,
  });
  world.clients.checkHolders = drainTimeoutMs > 1000;
  return world;
}

/** A link that stays cut must not take the farm down: the others serve every client. */
function playLasting(world: World): void {
  const { chance } = world;
  const count = world.nodes.length;
  const from = chance.below(count);
  const to = (from + 1 + chance.below(count - 1)) % count;
  const both = chance.is(0.5);
  const set = (on: boolean): void => {
    world.setCut(from, to, on);
    if (both) world.setCut(to, from, on);
  };
  world.record(9, 'fault', `lasting cut ${from}->${to}${both ? ', both ways' : ''}`);
  set(true);
  const served = world.run(world.nowMs + calmMs, () => world.checks.unserved() === null);
  if (!served) throw new Violation('not served', world.checks.unserved() ?? 'late');
  world.run(world.nowMs + 1000, null);
  const still = world.run(world.nowMs + 100, () => world.checks.unserved() === null);
  if (!still) throw new Violation('served, then not', world.checks.unserved() ?? 'late');
  set(false);
}

function play(world: World, options: SimOptions): void {
  const { chance } = world;
  const faults = options.faults ?? faultKinds.filter(() => chance.is(0.4));
  world.at(20, { kind: 'clients' });
  world.at(50, { kind: 'packets' });
  world.at(400, { kind: 'walk' });
  world.at(5, { kind: 'sample' });
  for (const node of world.nodes) {
    world.do(chance.between(0, 300), `n${node.id} on`, () => node.powerOn());
  }
  const faultsEndMs = 1500 + chance.between(500, 3500);
  const faultCount = faults.length === 0 ? 0 : 1 + chance.below(7);
  for (let n = 0; n < faultCount; n++) {
    const fromMs = chance.between(chance.is(0.2) ? 100 : 1200, faultsEndMs - 100);
    planFault(world, chance.pick(faults), fromMs, faultsEndMs);
  }
  world.run(faultsEndMs + 700, null);
  // All faults are over; what is still down comes up.
  world.options = calmNetwork;
  for (const node of world.nodes) {
    if (!node.up) node.powerOn();
    else if (node.keeper === null) {
      node.startKeeper();
      node.startAgent();
    } else node.startAgent();
    if (node.agentUp && node.state.role === 'stopped') {
      node.take({
        kind: 'start',
        nowMs: node.nowMs,
        ready: node.gate,
        adopt: null,
        epochMax: node.disk?.epochMax ?? 0,
      });
    }
  }
  if (world.nodes.length > 2 && chance.is(0.15)) playLasting(world);
  const whole = world.run(world.nowMs + calmMs, () => world.checks.unsettled() === null);
  if (!whole) throw new Violation('not whole again', world.checks.unsettled() ?? 'late');
  world.run(world.nowMs + 300, null);
  // A holder may be let go in just this moment: the next look must find it whole.
  const still = world.run(world.nowMs + 200, () => world.checks.unsettled() === null);
  if (!still) throw new Violation('whole, then not', world.checks.unsettled() ?? 'late');
}
