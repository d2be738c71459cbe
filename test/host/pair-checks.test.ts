/** What the checkers of a mirror lead to: orders, holds and vetoes. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { systemTimers } from '../../src/checkers/poll.ts';
import { ProcessTable } from '../../src/checkers/processes.ts';
import type { CheckConfig, ErrdConfig, ModuleConfig, ProcConfig } from '../../src/config/model.ts';
import { mirrorInit, mirrorTiming, type MirrorState, type Phase } from '../../src/core/mirror.ts';
import { readRules, type Rule } from '../../src/core/rules.ts';
import { PairChecks } from '../../src/host/pair-checks.ts';
import { eventually as until, handMade, temporaryPaths } from '../module/helpers.ts';

const timing = { intervalMs: 20, timeoutMs: 5000 };
const both = { when: 'both', line: 1 } as const;
const ping = (ident: string, change: Partial<CheckConfig> = {}): CheckConfig =>
  ({
    ...both,
    kind: 'ping',
    ident,
    action: 'restart',
    addr: ident,
    ...timing,
    ...change,
  }) as CheckConfig;

interface Wanted {
  readonly checks?: readonly CheckConfig[];
  readonly rules?: string;
  readonly handleTimeMs?: number;
  readonly extends?: boolean;
  readonly errd?: ErrdConfig;
  readonly scripts?: Readonly<Record<string, string>>;
}

function rulesIn(text: string): readonly Rule[] {
  const read = readRules(text);
  assert.ok(!('reason' in read));
  return read;
}

const eventually = <T>(look: () => T | null | undefined | false): Promise<T> =>
  until(look, 'what the checkers lead to');

/** A module whose state changes as the core would change it; `down` are the addresses that do not answer. */
function setup(t: TestContext, wanted: Wanted) {
  const paths = temporaryPaths(t);
  handMade(paths, 'db', wanted.scripts ?? {});
  const down = new Set<string>();
  const orders: string[] = [];
  const base = mirrorInit({
    me: 0,
    peer: 1,
    names: { 0: 'a', 1: 'b' },
    hasData: false,
    timing: mirrorTiming({ heartbeatMs: 100, suspectMs: 1000, leaseMs: 1500 }),
    defaultPrim: 'alone',
    maxloop: 3,
    loopIntervalMs: 0,
    startMs: 0,
    hasHealth: false,
    healthAction: 'noaction',
  });
  const config = {
    name: 'db',
    user: null,
    checks: wanted.checks ?? [],
    errd: wanted.errd ?? null,
    failover: {
      extends: wanted.extends ?? true,
      periodMs: 0,
      handleTimeMs: wanted.handleTimeMs ?? 0,
      rules: rulesIn(wanted.rules ?? ''),
    },
  } as unknown as ModuleConfig;
  let state: MirrorState = base;
  const become = (change: Partial<MirrorState>): void => {
    state = { ...state, ...change };
    checks.follow(state);
  };
  const ports = {
    paths,
    timers: systemTimers,
    links: { devices: () => [], addresses: () => [], subscribe: () => () => undefined },
    pinger: { ping: async (addr: string) => (down.has(addr) ? 'silence' : null) },
    processes: new ProcessTable(systemTimers),
    clusterCa: '',
  };
  const checks: PairChecks = new PairChecks(config, ports, {
    node: 'a',
    order: (verb, by) => {
      orders.push(`${verb}: ${by}`);
      become({ phase: 'primStopping' });
    },
    hold: (hold) => become({ hold }),
    veto: (veto) => become({ veto }),
    record: () => undefined,
  });
  t.after(() => checks.abandon());
  return {
    paths,
    checks,
    down,
    orders,
    now: () => state,
    become,
    enter: (phase: Phase) => become({ phase }),
    is: (resource: string, wantedState: string) =>
      eventually(() => (checks.resources()[resource] === wantedState ? true : null)),
    ordered: (count: number) => eventually(() => (orders.length >= count ? true : null)),
  };
}

test('a checker that fails on the primary: its action, once for each run of the application', async (t) => {
  const w = setup(t, { checks: [ping('x')] });
  assert.deepEqual(w.checks.resources(), { 'ping.x': 'init' });
  w.enter('prim');
  await w.is('ping.x', 'up');
  w.down.add('x');
  await w.ordered(1);
  assert.deepEqual(w.orders, ['restart: p_x: ping.x is down, silence']);
  assert.equal(w.checks.resources()['ping.x'], 'init', 'it rests while the application does');
  w.enter('primStarting');
  w.enter('prim');
  await w.ordered(2);
  w.down.clear();
  w.enter('prim');
  await w.is('ping.x', 'up');
  assert.equal(w.orders.length, 2);
});

test('checkers run as their `when` says', async (t) => {
  const when = (moment: CheckConfig['when']) => ping(moment, { when: moment, action: 'noaction' });
  const w = setup(t, { checks: [when('pre'), when('prim'), when('second'), when('both')] });
  const running = async (...names: string[]): Promise<void> => {
    await Promise.all(names.map((name) => w.is(`ping.${name}`, 'up')));
    const up = Object.entries(w.checks.resources()).filter(([, state]) => state === 'up');
    assert.deepEqual(up.map(([name]) => name.slice(5)).toSorted(), names.toSorted());
  };
  w.enter('waiting');
  await running('pre');
  w.enter('second');
  await running('pre', 'second', 'both');
  w.enter('primOpening');
  await running('pre');
  w.enter('prim');
  await running('pre', 'prim', 'both');
  w.enter('stopped');
  await running();
});

test('wait: no claim before the first word; held while it is down, and no longer', async (t) => {
  const w = setup(t, { checks: [ping('gw', { when: 'pre', action: 'wait' })] });
  w.enter('prestart');
  assert.match(String(w.now().veto), /ping.gw has not said anything yet/);
  await w.is('ping.gw', 'up');
  assert.equal(w.now().veto, null);
  w.enter('prim');
  w.down.add('gw');
  await eventually(() => w.now().hold);
  assert.equal(w.now().hold, 'p_gw: ping.gw is down, silence');
  w.enter('waiting');
  assert.notEqual(w.now().hold, null);
  w.down.clear();
  await eventually(() => (w.now().hold === null ? true : null));
  assert.deepEqual(w.orders, []);
});

test('a hold of the agent before stays until the checker has spoken', async (t) => {
  const w = setup(t, { checks: [ping('gw', { when: 'pre', action: 'wait' })] });
  w.become({ phase: 'waiting', hold: 'p_gw: of before' });
  assert.equal(w.now().hold, 'p_gw: of before');
  await eventually(() => (w.now().hold === null ? true : null));
});

test('splitbrain is a veto, and nothing but a veto', async (t) => {
  const arg = '10.0.0.1 10.0.0.2';
  const check = {
    ...both,
    when: 'pre',
    kind: 'splitbrain',
    ident: 'w',
    exec: 'ping',
    arg,
  } as const;
  const w = setup(t, { checks: [{ ...check, action: 'noaction' }] });
  w.enter('prestart');
  assert.match(String(w.now().veto), /splitbrain.w has not said anything yet/);
  await eventually(() => (w.now().veto === null ? true : null));
  w.enter('second');
  w.down.add('10.0.0.1');
  w.down.add('10.0.0.2');
  await eventually(() => w.now().veto);
  assert.match(String(w.now().veto), /splitbrain.w is down: no witness answers/);
  assert.equal(w.now().hold, null);
  w.down.delete('10.0.0.2');
  await eventually(() => (w.now().veto === null ? true : null));
  assert.deepEqual(w.orders, []);
});

test('rules: one of the same label takes the place of the checker’s own', async (t) => {
  const w = setup(t, {
    checks: [ping('x'), ping('y', { action: 'noaction' })],
    rules: 'p_x: if (ping.x == down && ping.y == down) then stop();',
  });
  w.enter('prim');
  w.down.add('x');
  await w.is('ping.x', 'down');
  assert.deepEqual(w.orders, []);
  w.down.add('y');
  await w.ordered(1);
  assert.deepEqual(w.orders, ['stop: p_x: ping.x is down, silence: ping.y is down, silence']);
});

test('rules: extends="no" leaves the actions of the checkers out', async (t) => {
  const w = setup(t, { checks: [ping('x')], extends: false });
  w.enter('prim');
  w.down.add('x');
  await w.is('ping.x', 'down');
  w.checks.follow(w.now());
  assert.deepEqual(w.orders, []);
});

test('rules: handle_time is how long one must hold', async (t) => {
  const rules = 'r: if (ping.x == down) then stop();';
  const w = setup(t, {
    checks: [ping('x', { action: 'noaction' })],
    rules,
    handleTimeMs: 300,
  });
  w.down.add('x');
  const from = performance.now();
  w.enter('prim');
  await w.ordered(1);
  assert.ok(performance.now() - from >= 300);
});

test('rules: a swap waits until the other server can take over', async (t) => {
  const w = setup(t, {
    checks: [ping('x', { action: 'noaction' })],
    rules: 'r: if (ping.x == down) then swap();',
  });
  const record = { incarnation: 1, epoch: 2, primary: 0, inSync: [0, 1], leaseMs: 1500 };
  const { durable, peer } = w.now();
  w.become({ phase: 'prim', durable: { ...durable, record } });
  w.down.add('x');
  await w.is('ping.x', 'down');
  assert.match(w.checks.why().join(), /r would swap, but b is not in reach/);
  const status = { state: 'SECOND', refuses: null } as NonNullable<MirrorState['peer']['status']>;
  w.become({ peer: { ...peer, reach: 'both', status } });
  assert.deepEqual(w.orders, ['swap: r: ping.x is down, silence']);
});

test('a checker of one’s own is told to the mirror by `set`, and runs once', async (t) => {
  const custom = { ...both, kind: 'custom', ident: 'c', exec: 'c.sh', arg: '' } as const;
  const script = '#!/bin/sh\necho $$ >>"$SAFEUSERVAR/pids"\nexec sleep 1000\n';
  const w = setup(t, {
    checks: [{ ...custom, action: 'stop' }],
    scripts: { 'c.sh': script },
  });
  assert.equal(w.checks.set('custom.c', 'down', 'x'), false, 'it does not run');
  w.enter('prim');
  await eventually(() => (w.checks.set('custom.c', 'up', 'fine') ? true : null));
  assert.equal(w.checks.resources()['custom.c'], 'up');
  assert.equal(w.checks.set('custom.other', 'down', 'x'), false);
  assert.ok(w.checks.set('custom.c', 'down', 'the disk is slow'));
  assert.deepEqual(w.orders, ['stop: c_c: custom.c is down, the disk is slow']);
});

test('errd: a script that is to mend it; where it cannot, a stopstart', async (t) => {
  const proc: ProcConfig = {
    name: 'absent',
    service: false,
    nameRegex: null,
    argRegex: '^no process has this$',
    atLeast: 1,
    atMost: -1,
    action: 'mend.sh',
    restartServices: [],
    when: 'prim',
    startAfter: 0,
    line: 1,
  };
  const script =
    '#!/bin/sh\nif [ -e "$SAFEUSERVAR/asked" ]; then echo gone; exit 3; fi\nmkdir -p "$SAFEUSERVAR"; : >"$SAFEUSERVAR/asked"\n';
  const w = setup(t, { errd: { pollMs: 50, procs: [proc] }, scripts: { 'mend.sh': script } });
  w.enter('prim');
  await w.ordered(1);
  assert.match(w.orders.join(), /^stopstart: proc.absent: .*0 of at least 1 processes.*gone$/);
});
