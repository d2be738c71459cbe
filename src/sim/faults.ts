/** Faults drawn from the seed. Each seed has its own mixture (swarm), each fault ends. */
import type { Chance } from './kit.ts';
import type { World } from './world.ts';

export type FaultKind =
  | 'oneWay'
  | 'pairCut'
  | 'partition'
  | 'deaf'
  | 'crash'
  | 'keeperKill'
  | 'keeperPause'
  | 'agentKill'
  | 'agentPause'
  | 'freeze'
  | 'drain'
  | 'power'
  | 'ready'
  | 'restartModule';

export const faultKinds: readonly FaultKind[] = [
  'oneWay',
  'pairCut',
  'partition',
  'deaf',
  'crash',
  'keeperKill',
  'keeperPause',
  'agentKill',
  'agentPause',
  'freeze',
  'drain',
  'power',
  'ready',
  'restartModule',
];

/** Plans one fault: it begins at fromMs and is over at untilMs at the latest. */
export function planFault(world: World, kind: FaultKind, fromMs: number, untilMs: number): void {
  const { chance } = world;
  const count = world.nodes.length;
  const id = chance.below(count);
  const other = (id + 1 + chance.below(count - 1)) % count;
  const node = world.node(id);
  const endMs = chance.between(fromMs, untilMs);
  const pair = (what: string, begin: () => void, end: () => void): void => {
    world.do(fromMs, `${kind} ${what}`, begin);
    world.do(endMs, `${kind} ${what} ends`, end);
  };
  switch (kind) {
    case 'oneWay':
      pair(
        `${id}->${other}`,
        () => world.setCut(id, other, true),
        () => world.setCut(id, other, false),
      );
      return;
    case 'pairCut':
      pair(
        `${id}-${other}`,
        () => cutPair(world, id, other, true),
        () => cutPair(world, id, other, false),
      );
      return;
    case 'deaf': {
      const set = (on: boolean) => () => {
        for (let from = 0; from < count; from++) if (from !== id) world.setCut(from, id, on);
      };
      pair(`${id}`, set(true), set(false));
      return;
    }
    case 'partition':
      planPartition(world, fromMs, endMs);
      return;
    case 'crash':
      pair(
        `n${id}`,
        () => node.up && node.powerOff(),
        () => !node.up && node.powerOn(),
      );
      return;
    case 'keeperKill':
      world.do(fromMs, `keeperKill n${id}`, () => {
        node.stopAgent();
        node.stopKeeper();
        node.upset++;
      });
      world.do(fromMs + chance.between(1, 400), `keeper n${id} starts`, () => {
        if (!node.up || node.frozen || node.keeper !== null) return;
        node.startKeeper();
        node.startAgent();
      });
      return;
    case 'keeperPause':
      pair(
        `n${id}`,
        () => (node.keeperPaused = true),
        () => node.resumeKeeper(),
      );
      return;
    case 'agentKill':
      world.do(fromMs, `agentKill n${id}`, () => node.stopAgent());
      world.do(fromMs + chance.between(20, 600), `agent n${id} starts`, () => {
        if (node.up && !node.frozen) node.startAgent();
      });
      return;
    case 'agentPause':
      pair(
        `n${id}`,
        () => node.pauseAgent(),
        () => node.resumeAgent(),
      );
      return;
    case 'freeze':
      pair(
        `n${id}`,
        () => freeze(world, id, true),
        () => freeze(world, id, false),
      );
      return;
    default:
      planWish(world, kind, id, fromMs, endMs);
  }
}

function cutPair(world: World, a: number, b: number, on: boolean): void {
  world.setCut(a, b, on);
  world.setCut(b, a, on);
}

function planPartition(world: World, fromMs: number, endMs: number): void {
  const count = world.nodes.length;
  const mask = 1 + world.chance.below(2 ** count - 2);
  const inside = (node: number): boolean => ((mask >> node) & 1) === 1;
  const set = (on: boolean) => () => {
    for (let a = 0; a < count; a++) {
      const bit = inside(a) ? 1 : 0;
      // Partitions overlap: a side is where a node is in all of them.
      world.side[a] = (world.side[a] ?? 0) + (on ? bit : -bit) * 2 ** (mask % 7) * 1;
      for (let b = 0; b < a; b++) if (inside(a) !== inside(b)) cutPair(world, a, b, on);
    }
    if (!on) world.filterChanged();
  };
  world.do(fromMs, `partition ${mask.toString(2)}`, set(true));
  world.do(endMs, `partition ${mask.toString(2)} heals`, set(false));
}

function freeze(world: World, id: number, on: boolean): void {
  const node = world.node(id);
  if (!node.up) {
    node.frozen = false;
    return;
  }
  if (on) {
    node.frozen = true;
    node.keeperPaused = true;
    node.pauseAgent();
    return;
  }
  node.frozen = false;
  // The threads of a server that wakes run in any order.
  const agentFirst = world.chance.is(0.5);
  if (agentFirst) node.resumeAgent();
  node.resumeKeeper();
  if (!agentFirst) node.resumeAgent();
  if (node.keeper === null) node.startKeeper();
  node.startAgent();
  world.filterChanged();
}

/** What an operator or the application does. */
function planWish(world: World, kind: FaultKind, id: number, fromMs: number, endMs: number): void {
  const { chance } = world;
  const node = world.node(id);
  const groups = node.config.groups.length;
  switch (kind) {
    case 'drain':
      world.do(fromMs, `drain n${id}`, () =>
        node.take({ kind: 'drain', nowMs: node.nowMs, on: true }),
      );
      world.do(endMs, `undrain n${id}`, () =>
        node.take({ kind: 'drain', nowMs: node.nowMs, on: false }),
      );
      return;
    case 'power': {
      const power = drawPower(chance);
      const group = chance.is(0.5) ? null : chance.below(groups);
      world.do(fromMs, `power n${id} ${group} = ${power}`, () =>
        node.take({ kind: 'power', nowMs: node.nowMs, group, power }),
      );
      return;
    }
    case 'ready': {
      const set = (on: boolean) => () => {
        node.gate = on;
        node.gateShutMs = world.nowMs;
        node.take({ kind: 'ready', nowMs: node.nowMs, on });
      };
      world.do(fromMs, `not ready n${id}`, set(false));
      world.do(endMs, `ready n${id}`, set(true));
      return;
    }
    case 'restartModule':
      world.do(fromMs, `stop n${id}`, () => {
        node.upset++;
        node.take({ kind: 'stop', nowMs: node.nowMs });
      });
      world.do(Math.max(endMs, fromMs + 50), `start n${id}`, () => {
        if (!node.agentUp) return;
        node.flows = [];
        node.take({
          kind: 'start',
          nowMs: node.nowMs,
          ready: node.gate,
          adopt: null,
          epochMax: node.disk?.epochMax ?? 0,
        });
      });
      return;
    default:
  }
}

function drawPower(chance: Chance): number {
  return chance.pick([0, 1, 1, 2, 3, 7, 64, 64 * 64, 2 ** 24]);
}
