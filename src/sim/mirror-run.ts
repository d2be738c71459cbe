/** One seed of a mirror: a world, its faults, safety after each event, liveness at the end. */
import { type MirrorConfig, mirrorRules, type MirrorRules } from '../core/mirror.ts';
import { type MirrorPace, mirrorProfiles, mirrorTiming } from '../core/mirror-timing.ts';
import { Chance, type SeedResult, Violation } from './kit.ts';
import { type MirrorFault, mirrorFaults, planMirrorFault } from './mirror-faults.ts';
import { type MirrorNetwork, type MirrorSetting, MirrorWorld } from './mirror-world.ts';

export interface MirrorResult extends SeedResult {
  readonly acknowledged: number;
  readonly epoch: number;
}

export interface MirrorSimOptions {
  readonly rules?: MirrorRules;
  /** Only these faults, where given. */
  readonly faults?: readonly MirrorFault[];
  /** A mirror of an application without replicated directories. */
  readonly noData?: boolean;
  /** The application writes wherever it runs, not only for clients. */
  readonly ownWrites?: boolean;
  /** Many faults, of every kind, at once. */
  readonly storm?: boolean;
  /** False: only what must never happen is looked for. */
  readonly liveness?: boolean;
}

/** After the last fault the mirror must be whole within this. */
export const calmMs = 40_000;

const agentDeadlineMs = 5000;
/** Of each clock: two of them are 1 % apart at most, as the grace allows for. */
const skew = 0.005;

export const calmNetwork: MirrorNetwork = {
  loss: 0,
  duplicate: 0,
  delayMs: 1,
  slow: 0,
  slowMs: 0,
  arbiterSlow: 0,
  arbiterSlowMs: 0,
};

export function mirrorConfig(me: number, pace: MirrorPace = mirrorProfiles.default): MirrorConfig {
  return {
    me,
    peer: 1 - me,
    names: { 0: 'n0', 1: 'n1' },
    hasData: true,
    timing: mirrorTiming(pace),
    defaultPrim: 'alone',
    maxloop: 3,
    loopIntervalMs: 86_400_000,
    hasHealth: true,
    startMs: 3000,
    healthAction: 'stopstart',
  };
}

export function runMirrorSeed(seed: number, options: MirrorSimOptions = {}): MirrorResult {
  const world = makeWorld(seed, options);
  let rule: string | null = null;
  let text = 'ok';
  try {
    play(world, options);
  } catch (error) {
    if (!(error instanceof Violation)) throw error;
    rule = error.rule;
    text = error.message;
  }
  return {
    seed,
    ok: rule === null,
    rule,
    text: `${text} at ${world.nowMs.toFixed(1)} ms`,
    events: world.events,
    steps: world.steps,
    hash: world.trace.hash,
    virtualMs: world.nowMs,
    acknowledged: world.checks.acknowledgedCount,
    epoch: world.register.newest?.epoch ?? 0,
    trace: world.trace.last(),
  };
}

function makeWorld(seed: number, options: MirrorSimOptions): MirrorWorld {
  const draw = new Chance(seed ^ 0x5bd1e995);
  const network: MirrorNetwork = {
    loss: draw.is(0.3) ? draw.between(0, 0.3) : 0,
    duplicate: draw.is(0.3) ? draw.between(0, 0.3) : 0,
    delayMs: draw.pick([0.3, 1, 1, 5, 40]),
    slow: draw.is(0.4) ? draw.between(0, 0.2) : 0,
    slowMs: draw.pick([20, 120, 800]),
    arbiterSlow: draw.is(0.3) ? draw.between(0, 0.3) : 0,
    arbiterSlowMs: draw.pick([200, 2000, 8000]),
  };
  const pace = draw.pick([mirrorProfiles.default, mirrorProfiles.default, mirrorProfiles.vm]);
  const isSwapper = draw.is(0.2);
  const hasHealth = draw.is(0.5);
  const maxloop = draw.pick([3, 3, 100]);
  const defaultPrim = draw.pick(['alone', 'alone', 'lastprim', 0, 1] as const);
  const setting: MirrorSetting = {
    rules: options.rules ?? mirrorRules,
    timing: { ...pace, agentDeadlineMs },
    config: (me) => ({
      ...mirrorConfig(me, pace),
      hasData: options.noData !== true,
      hasHealth,
      healthAction: isSwapper ? 'swap' : 'stopstart',
      maxloop,
      defaultPrim: typeof defaultPrim === 'number' ? { node: defaultPrim } : defaultPrim,
    }),
    ownWrites: options.ownWrites === true,
    skew: draw.is(0.7) ? skew : 0,
  };
  return new MirrorWorld(seed, setting, network);
}

/** A mirror without faults that has become whole: server 0 is primary. */
export function wholeMirror(seed: number, pace: MirrorPace = mirrorProfiles.default): MirrorWorld {
  const setting: MirrorSetting = {
    rules: mirrorRules,
    timing: { ...pace, agentDeadlineMs },
    config: (me) => mirrorConfig(me, pace),
    ownWrites: false,
    skew,
  };
  const world = new MirrorWorld(seed, setting, calmNetwork);
  for (const node of world.nodes) {
    node.wanted = true;
    node.powerOn();
  }
  world.after(100, () => world.node(0).order('prim'));
  const whole = world.run(20_000, () => world.checks.unsettled() === null);
  if (!whole) throw new Violation('not whole', world.checks.unsettled() ?? 'late');
  world.run(world.nowMs + 1000 + world.chance.between(0, 500), null);
  world.checks.silentMs = 0;
  return world;
}

/** The first start: one server is told that it is the primary, the other is just started. */
function begin(world: MirrorWorld): void {
  const { chance } = world;
  const first = chance.below(2);
  for (const node of world.nodes) {
    const onMs = chance.between(0, 200);
    world.at(onMs, () => node.powerOn());
    world.at(onMs + chance.between(1, 400), () => {
      node.wanted = true;
      node.order(node.id === first ? 'prim' : chance.pick(['start', 'second']));
    });
  }
}

function play(world: MirrorWorld, options: MirrorSimOptions): void {
  const { chance } = world;
  const storm = options.storm === true;
  const faults = options.faults ?? mirrorFaults.filter(() => storm || chance.is(0.3));
  begin(world);
  const early = chance.is(0.15);
  const quietMs = early ? 0 : 2500;
  const endMs = quietMs + 1000 + chance.between(500, 12_000);
  const few = faults.length === 0 ? 0 : 1 + chance.below(8);
  const count = storm ? 10 + chance.below(40) : few;
  for (let n = 0; n < count; n++) {
    const fromMs = chance.between(quietMs, endMs - 100);
    planMirrorFault(world, chance.pick(faults), fromMs, endMs);
  }
  world.run(endMs + 5, null);
  if (options.liveness === false) {
    world.run(endMs + 3000, null);
    return;
  }
  // The only disk that had everything broke: what was on it is gone, and an operator's business.
  if (world.checks.isGone()) return;
  calm(world);
  // What was on its way may still come, and disturb it once more.
  for (let tries = 3; tries > 0; tries--) {
    const whole = world.run(world.nowMs + calmMs, () => world.checks.unsettled() === null);
    // A swap that was under way when the disk broke may have landed since.
    if (!whole && world.checks.isGone()) return;
    if (!whole) throw new Violation('not whole again', world.checks.unsettled() ?? 'late');
    world.run(world.nowMs + 1300, null);
    if (world.checks.unsettled() === null) return;
  }
  throw new Violation('whole, then not', world.checks.unsettled() ?? 'now and then');
}

/** All faults are over; what was stopped is started, by an operator once. */
function calm(world: MirrorWorld): void {
  world.record('fault', 'all over');
  world.network = calmNetwork;
  world.heal();
  world.register.down = false;
  world.arbiterMs = 1;
  for (const node of world.nodes) {
    node.mend();
    world.after(50, () => node.order('failoverOn'));
    startWhenStopped(world, node.id, looksMax);
  }
}

const looksMax = 20;

/** What an operator does: `start`, where it was stopped; `prim`, where nobody was primary yet. */
function startWhenStopped(world: MirrorWorld, id: number, looks: number): void {
  if (looks === 0) return;
  world.after(500, () => {
    const node = world.node(id);
    const { phase, parked } = node.state;
    if (phase === 'stopped' || parked !== null || looks === looksMax) node.order('start');
    const { record } = world.register;
    const first = record === null ? 0 : record.primary;
    // Its first copy was never made: there is nothing that could be given up.
    const isBlank = world.checks.acknowledgedCount === 0 && world.node(first).copy.state === 'none';
    if (phase === 'waiting' && id === first && isBlank) {
      node.order(record === null ? 'prim' : 'primforce');
    }
    startWhenStopped(world, id, looks - 1);
  });
}
