/** Faults of a simulated mirror, drawn from the seed. Each seed has its own mixture, each ends. */
import type { MirrorVerb } from '../core/mirror.ts';
import type { MirrorNode } from './mirror-node.ts';
import { arbiter, type MirrorWorld, type Plane, planes } from './mirror-world.ts';

export const mirrorFaults = [
  'pairCut',
  'oneWay',
  'planeCut',
  'arbiterCut',
  'isolate',
  'arbiterDown',
  'arbiterSlow',
  'power',
  'bothPower',
  'keeperKill',
  'keeperPause',
  'agentKill',
  'agentPause',
  'freeze',
  'enginePause',
  'engineLoss',
  'diskSlow',
  'diskFail',
  'persistFail',
  'scriptFail',
  'unhealthy',
  'veto',
  'hold',
  'swap',
  'order',
  'failoverOff',
  'pullAtEffect',
] as const;
/**
 * Of the arbiter's record, only where asked for. wipe: it comes back empty, as one that was restored
 * must; what follows may need the operator. restore: it comes back with a backup and does not say
 * so; nobody can notice that while the server that knows more is away. move: another one takes its
 * place, which one server learns before the other.
 */
export type MirrorFault = (typeof mirrorFaults)[number] | 'wipe' | 'restore' | 'move';

/** Plans one fault: it begins at fromMs and is over at untilMs at the latest. */
export function planMirrorFault(
  world: MirrorWorld,
  kind: MirrorFault,
  fromMs: number,
  untilMs: number,
): void {
  const { chance } = world;
  const id = chance.below(2);
  const node = world.node(id);
  // Most faults are short beside the time-outs, or about as long, or much longer.
  const lengthMs = chance.pick([50, 400, 1500, 4000, 10000]) * (0.5 + chance.unit());
  const endMs = Math.min(fromMs + lengthMs, untilMs);
  const pair = (what: string, set: (on: boolean) => void): void => {
    world.at(fromMs, () => {
      world.record('fault', `${kind} ${what}`);
      set(true);
    });
    world.at(endMs, () => {
      world.record('fault', `${kind} ${what} ends`);
      set(false);
    });
  };
  const once = (what: string, act: () => void): void =>
    world.at(fromMs, () => {
      world.record('fault', `${kind} ${what}`);
      act();
    });
  switch (kind) {
    case 'pairCut':
      return pair('', (on) => cutAll(world, id, 1 - id, on, true));
    case 'oneWay':
      return pair(`n${id}->`, (on) => cutAll(world, id, 1 - id, on, false));
    case 'planeCut': {
      const plane: Plane = chance.pick(['beat', 'talk', 'stream']);
      const both = chance.is(0.5);
      return pair(`${plane} n${id}->${both ? ' both ways' : ''}`, (on) => {
        world.cut(plane, id, 1 - id, on);
        if (both) world.cut(plane, 1 - id, id, on);
      });
    }
    case 'arbiterCut': {
      const [there, back] = chance.pick([
        [true, true],
        [true, false],
        [false, true],
      ] as const);
      return pair(`n${id}`, (on) => {
        if (there) world.cut('arbiter', id, arbiter, on);
        if (back) world.cut('arbiter', arbiter, id, on);
      });
    }
    case 'isolate':
      return pair(`n${id}`, (on) => {
        cutAll(world, id, 1 - id, on, true);
        world.cut('arbiter', id, arbiter, on);
        world.cut('arbiter', arbiter, id, on);
      });
    case 'arbiterDown':
      return pair('', (on) => (world.register.down = on));
    case 'arbiterSlow': {
      const ms = chance.pick([200, 900, 3000]);
      return pair(`${ms} ms`, (on) => (world.arbiterMs = on ? ms : 1));
    }
    case 'wipe':
      return once('', () => (world.register.record = null));
    case 'move':
      return pair(`n${id}`, (on) => (on ? world.moveArbiter(id) : world.followArbiter(1 - id)));
    case 'restore':
      return once('', () => restore(world));
    default:
      return planOnNode(world, kind, node, { pair, once, endMs });
  }
}

interface Plan {
  readonly pair: (what: string, set: (on: boolean) => void) => void;
  readonly once: (what: string, act: () => void) => void;
  readonly endMs: number;
}

function planOnNode(
  world: MirrorWorld,
  kind: MirrorFault,
  node: MirrorNode,
  { pair, once, endMs }: Plan,
): void {
  const { chance } = world;
  const name = `n${node.id}`;
  switch (kind) {
    case 'power':
      return pair(name, (on) => (on ? node.powerOff() : node.powerOn()));
    case 'bothPower': {
      const lateMs = chance.pick([0, 5, 2000]) * chance.unit();
      return pair('', (on) => {
        for (const one of world.nodes) {
          const act = (): void => (on ? one.powerOff() : one.powerOn());
          world.after(one === node ? 0 : lateMs, act);
        }
      });
    }
    case 'pullAtEffect':
      // Between two effects of one step, or while something is being written.
      return once(name, () => {
        node.pullAfter = 1 + chance.below(30);
        world.at(endMs, () => {
          node.pullAfter = 0;
          node.powerOn();
        });
      });
    case 'keeperKill':
    case 'agentKill': {
      const downMs = chance.pick([5, 300, 3000]) * chance.unit();
      return once(name, () => {
        if (kind === 'keeperKill') node.killKeeper();
        else node.killAgent();
        world.after(downMs, () => {
          node.startKeeper();
          node.startAgent();
        });
      });
    }
    case 'keeperPause':
      return pair(name, (on) => node.pause(node.beats, on));
    case 'agentPause':
      return pair(name, (on) => node.pause(node.agent, on));
    case 'enginePause':
      return pair(name, (on) => node.pause(node.engines, on));
    case 'freeze':
      return pair(name, (on) => node.freeze(on));
    case 'engineLoss':
      return once(name, () => node.loseEngine());
    case 'diskSlow': {
      const ms = chance.pick([20, 300, 2000]);
      return pair(`${name} ${ms} ms`, (on) => (node.diskSlowMs = on ? ms : 0));
    }
    case 'diskFail':
      return once(name, () => failDisk(world, node));
    case 'persistFail':
      return pair(name, (on) => (node.persistFails = on));
    case 'scriptFail':
      return pair(name, (on) => (node.app.scriptFails = on));
    case 'unhealthy':
      return pair(name, (on) => {
        node.app.healthy = !on;
        node.tellHealth(50);
      });
    default:
      return planWish(world, kind, node, { pair, once, endMs });
  }
}

/** What an operator or a checker does. */
function planWish(
  world: MirrorWorld,
  kind: MirrorFault,
  node: MirrorNode,
  { pair, once }: Plan,
): void {
  const { chance } = world;
  const name = `n${node.id}`;
  switch (kind) {
    case 'veto':
      return pair(name, (on) =>
        node.take((nowMs) => ({ kind: 'veto', nowMs, why: on ? 'the router is silent' : null })),
      );
    case 'hold':
      return pair(name, (on) =>
        node.take((nowMs) => ({ kind: 'hold', nowMs, why: on ? 'a checker waits' : null })),
      );
    case 'swap': {
      const verb = chance.is(0.8) ? 'swap' : 'swapNosync';
      return once(`${name} ${verb}`, () => node.order(verb, chance.is(0.2) ? 'a rule' : null));
    }
    case 'order': {
      const verb: MirrorVerb = chance.pick([
        'stop',
        'forcestop',
        'stopstart',
        'restart',
        'start',
        'prim',
        'second',
      ]);
      return once(`${name} ${verb}`, () => node.order(verb));
    }
    case 'failoverOff':
      return pair(name, (on) => node.order(on ? 'failoverOff' : 'failoverOn'));
    default:
      throw new Error(`no such fault ${kind}`);
  }
}

function cutAll(world: MirrorWorld, from: number, to: number, on: boolean, both: boolean): void {
  for (const plane of planes) {
    world.cut(plane, from, to, on);
    if (both) world.cut(plane, to, from, on);
  }
}

/** Only where another disk in sync survives: nothing can be promised otherwise. */
function failDisk(world: MirrorWorld, node: MirrorNode): void {
  const { newest } = world;
  const other = world.node(1 - node.id);
  const otherCounts = newest !== null && newest.inSync.includes(other.id);
  if (!otherCounts || other.copy.state !== 'inSync' || other.lostDisk) return;
  node.engineRuns(() => node.engine.fail());
}

/** The arbiter comes back with a backup. */
function restore(world: MirrorWorld): void {
  const { register } = world;
  const older = register.past[world.chance.below(register.past.length)];
  if (older !== undefined) register.record = older;
}
