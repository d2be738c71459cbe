/**
 * Two servers with the real machine, the arbiter and the stream, for exhaustive exploration. No time:
 * what is set may end, what is under way may come, stay away or come again, in any order. Only
 * data is looked at; the lease is the simulator's (mirror-run.ts).
 *
 * The engine is that of the abstract protocol (mirror-model.ts): what it sends is never removed.
 * Of the words between the agents the newest in each direction can be heard, any number of times.
 * Scripts, the application and the engine's answers are immediate: they choose nothing.
 */
import { blankDurable, type MirrorRules } from '../core/mirror.ts';
import type { Move } from './explore.ts';
import { type LocalEffect, type LocalEvent, LocalMachine } from './mirror-local.ts';
import {
  askedText,
  isRefused,
  noEngine,
  nodeOf,
  noticing,
  type PairBounds,
  type PairEngine,
  type PairMessage,
  type PairNode,
  type PairState,
  recordText,
  send,
  withNode,
} from './mirror-pair.ts';
import { isEqual } from './mirror-register.ts';

export class PairWorld {
  bounds: PairBounds;
  readonly rules: MirrorRules;
  readonly local: LocalMachine;
  readonly #texts = new Map<object, string>();

  constructor(bounds: PairBounds, rules: MirrorRules) {
    this.bounds = bounds;
    this.rules = rules;
    this.local = new LocalMachine(rules);
  }

  /** Both booted and nothing more. */
  blank(): PairState {
    const node = (me: number): PairNode => ({
      up: true,
      state: this.local.init(me),
      engine: noEngine,
      durable: blankDurable,
      copy: 'none',
      log: [],
      session: 0,
      asked: null,
      word: null,
      fresh: false,
      reach: 'unknown',
    });
    const state: PairState = {
      nodes: [node(0), node(1)],
      record: null,
      connected: false,
      messages: new Map(),
      acked: [],
      writes: 0,
      crashes: 0,
      troubles: 0,
    };
    return this.#boot(this.#boot(state, 0, 'prim'), 1, 'start');
  }

  text(state: PairState): string {
    const messages = [...state.messages.keys()].toSorted().join(' ');
    const [a, b] = state.nodes;
    const { acked, writes, crashes, troubles, connected } = state;
    const counts = [acked, writes, crashes, troubles, connected].join('/');
    return `${this.#nodeText(a)}|${this.#nodeText(b)}|${recordText(state.record)}|${counts}|${messages}`;
  }

  #nodeText(node: PairNode): string {
    const known = this.#texts.get(node);
    if (known !== undefined) return known;
    const { durable, word, asked, engine } = node;
    const parts = [node.up, node.state, node.copy, node.log, node.session, node.reach, node.fresh];
    const rest = [this.local.number(durable), this.local.number(word), askedText(asked)];
    const text = [...parts, ...Object.values(engine), ...rest].join('/');
    // States are many, and most of them share their nodes.
    if (this.#texts.size > 200_000) this.#texts.clear();
    this.#texts.set(node, text);
    return text;
  }

  /** As the model: who counts as in sync, or is primary by the record, has all that was acknowledged. */
  harm({ nodes, record, acked }: PairState): string | null {
    for (const [i, node] of nodes.entries()) {
      const missing = acked.find((write) => !node.log.includes(write));
      if (missing === undefined || record === null) continue;
      if (record.inSync.includes(i)) return `write ${missing} missing on ${i}, in sync`;
      const { role, epoch } = node.engine;
      if (role === 'prim' && epoch === record.epoch && record.primary === i) {
        return `write ${missing} missing on the primary ${i}`;
      }
    }
    const [a, b] = nodes;
    const two = a.engine.role === 'prim' && b.engine.role === 'prim';
    return two && a.engine.epoch === b.engine.epoch ? 'two primaries in one epoch' : null;
  }

  moves(state: PairState): Move<PairState>[] {
    const list: Move<PairState>[] = [];
    for (const i of [0, 1]) {
      const node = nodeOf(state, i);
      if (!node.up) {
        list.push({ name: `restart ${i}`, next: this.#boot(state, i, 'start') });
        continue;
      }
      this.#agent(state, i, node, list);
      this.#engine(state, i, node, list);
    }
    this.#link(state, list);
    this.#arbiter(state, list);
    return this.bounds.prompt ? list.flatMap((move) => this.#heard(move)) : list;
  }

  /** The words that a move brings are heard at once; or, as a trouble, not yet. */
  #heard({ name, next }: Move<PairState>): Move<PairState>[] {
    let state = next;
    for (let i = 0; state.nodes.some(({ fresh }) => fresh); i = 1 - i) {
      const { word, fresh } = nodeOf(state, i);
      if (!fresh || word === null) continue;
      state = withNode(state, i, { ...nodeOf(state, i), fresh: false });
      if (!nodeOf(state, 1 - i).up) continue;
      state = this.event(state, 1 - i, { kind: 'message', message: word });
    }
    const late = state === next ? null : this.#troubled(next);
    const moves = [{ name, next: state }];
    return late === null ? moves : [...moves, { name: `${name}, unheard`, next: late }];
  }

  // The machine.

  #boot(state: PairState, i: number, verb: 'start' | 'prim'): PairState {
    const node = nodeOf(state, i);
    const fresh = { ...node, up: true, state: this.local.init(i), engine: noEngine };
    const { durable, copy } = node;
    let next = withNode(state, i, {
      ...fresh,
      asked: null,
      reach: 'unknown',
      word: null,
      fresh: false,
    });
    next = this.event(next, i, { kind: 'boot', durable, copy });
    return this.event(next, i, { kind: 'order', verb });
  }

  /** The event, its effects, and what follows at once. `until`: only so many of the effects. */
  event(state: PairState, i: number, event: LocalEvent, until = Infinity): PairState {
    const step = this.local.step(nodeOf(state, i).state, event);
    let next = withNode(state, i, { ...nodeOf(state, i), state: step.state });
    const follow: LocalEvent[] = [];
    for (const [n, effect] of step.effects.entries()) {
      if (n >= until) return next;
      next = this.#perform(next, i, effect, follow);
    }
    for (const one of follow) next = this.event(next, i, one);
    return next;
  }

  #perform(state: PairState, i: number, effect: LocalEffect, follow: LocalEvent[]): PairState {
    const node = nodeOf(state, i);
    switch (effect.kind) {
      case 'persist':
        return withNode(state, i, { ...node, durable: effect.durable });
      case 'read':
        return withNode(state, i, {
          ...node,
          asked: { from: null, to: null, done: false, past: [] },
        });
      case 'swap': {
        const { from, to } = effect;
        const asked = withNode(state, i, { ...node, asked: { from, to, done: false, past: [] } });
        return send(asked, { kind: 'swap', from, record: to });
      }
      case 'send':
        // Heard by the other when it likes.
        return withNode(state, i, { ...node, word: effect.message, fresh: true });
      case 'run':
        follow.push({ kind: 'scriptDone' });
        return state;
      case 'engine':
        follow.push({ kind: 'engineDone' });
        return this.#order(state, i, effect.order, follow);
    }
  }

  #order(
    state: PairState,
    i: number,
    order: Extract<LocalEffect, { kind: 'engine' }>['order'],
    follow: LocalEvent[],
  ): PairState {
    const node = nodeOf(state, i);
    const { engine } = node;
    const ends = order.what === 'prim' || order.what === 'second' || order.what === 'close';
    const cut = ends || order.what === 'alone' ? this.#disconnect(state, i, follow) : state;
    const put = (next: Partial<PairEngine>, copy = node.copy): PairState =>
      withNode(cut, i, { ...nodeOf(cut, i), copy, engine: { ...engine, ...next } });
    const fresh = { peerHas: 0, told: 'none' } as const;
    switch (order.what) {
      case 'prim':
        if (node.copy !== 'inSync') follow.push({ kind: 'copy', copy: 'inSync' });
        return put(
          { role: 'prim', epoch: order.epoch, required: false, permit: order.epoch, ...fresh },
          'inSync',
        );
      case 'alone':
        return put({ epoch: order.epoch, permit: order.epoch, required: false, ...fresh });
      case 'joined':
        return put({ epoch: order.epoch });
      case 'second':
        return put({ role: 'second', floor: Math.max(engine.floor, order.floor), ...fresh });
      case 'close':
        return put({ ...noEngine });
    }
  }

  #agent(state: PairState, i: number, node: PairNode, list: Move<PairState>[]): void {
    const add = (name: string, event: LocalEvent, from = state): void =>
      this.#withCrashes(`${name} ${i}`, from, i, event, list);
    for (const timer of this.local.timers(node.state))
      add(`timer ${timer}`, { kind: 'timer', timer });
    const other = nodeOf(state, 1 - i);
    const mayHear = this.bounds.prompt ? other.fresh : true;
    if (other.word !== null && mayHear) {
      const from = withNode(state, 1 - i, { ...other, fresh: false });
      add('hear', { kind: 'message', message: other.word }, from);
    }
    const { reach } = node;
    const see = (to: 'silent' | 'both'): PairState => withNode(state, i, { ...node, reach: to });
    if (reach !== 'both' && other.up) add('up', { kind: 'peer', reach: 'both' }, see('both'));
    const silent = other.up ? this.#troubled(see('silent')) : see('silent');
    if (reach !== 'silent' && silent !== null)
      add('silent', { kind: 'peer', reach: 'silent' }, silent);
    this.#answers(state, i, node, add);
    if (state.crashes < this.bounds.crashes) {
      list.push({ name: `crash ${i}`, next: this.#crash(state, i) });
    }
  }

  /** One trouble more; null: there were enough. */
  #troubled(state: PairState): PairState | null {
    const { troubles } = state;
    return troubles < this.bounds.troubles ? { ...state, troubles: troubles + 1 } : null;
  }

  #answers(
    state: PairState,
    i: number,
    node: PairNode,
    add: (name: string, event: LocalEvent, from?: PairState) => void,
  ): void {
    const { asked } = node;
    if (asked === null) return;
    const from = withNode(state, i, { ...node, asked: null });
    const lost = this.#troubled(from);
    if (asked.to !== null && lost !== null) add('no answer', { kind: 'unknown' }, lost);
    if (asked.done) return add('won', { kind: 'won' }, from);
    for (const record of [state.record, ...asked.past]) {
      if (asked.to === null) add('read', { kind: 'record', record }, from);
      else if (isRefused(asked, record)) add('lost', { kind: 'lost', record }, from);
    }
  }

  /** As it goes to its end, and as it ends between any two of its effects. */
  #withCrashes(
    name: string,
    state: PairState,
    i: number,
    event: LocalEvent,
    list: Move<PairState>[],
  ): void {
    const node = nodeOf(state, i);
    const step = this.local.step(node.state, event);
    const { effects } = step;
    const again = (effect: LocalEffect): boolean =>
      effect.kind === 'send' && this.local.number(effect.message) === this.local.number(node.word);
    if (step.state === node.state && effects.every(again) && isTimeless(event)) return;
    list.push({ name, next: this.event(state, i, event) });
    this.#unkept(name, state, i, event, list);
    if (state.crashes >= this.bounds.crashes) return;
    for (let n = 1; n < effects.length; n++) {
      if (effects[n - 1]?.kind === 'run') continue;
      const half = this.event(state, i, event, n);
      list.push({ name: `${name}, crash after ${n}`, next: this.#crash(half, i) });
    }
  }

  /** The agent dies with its state not yet on disk; the next one has it from memory. A trouble. */
  #unkept(
    name: string,
    state: PairState,
    i: number,
    event: LocalEvent,
    list: Move<PairState>[],
  ): void {
    const troubled = this.#troubled(state);
    const { effects } = this.local.step(nodeOf(state, i).state, event);
    const at = effects.findIndex(({ kind }) => kind === 'persist');
    if (troubled === null || at < 0) return;
    const half = this.event(troubled, i, event, at);
    const alone = withNode(half, i, { ...nodeOf(half, i), asked: null, reach: 'unknown' });
    list.push({ name: `${name}, not kept`, next: this.event(alone, i, { kind: 'adopt' }) });
  }

  #crash(state: PairState, i: number): PairState {
    const follow: LocalEvent[] = [];
    const cut = this.#disconnect(state, i, follow);
    const node = { ...nodeOf(cut, i), up: false, engine: noEngine, asked: null, state: 0 };
    return { ...withNode(cut, i, node), crashes: state.crashes + 1 };
  }

  // The engines.

  #disconnect(state: PairState, i: number, follow: LocalEvent[]): PairState {
    if (!state.connected) return state;
    follow.push({ kind: 'enginePeer', peer: 'lost' });
    return this.event({ ...state, connected: false }, 1 - i, { kind: 'enginePeer', peer: 'lost' });
  }

  #link(state: PairState, list: Move<PairState>[]): void {
    const roles = state.nodes.map((node) => (node.up ? node.engine.role : 'none'));
    const prim = roles.indexOf('prim');
    if (prim < 0 || roles[1 - prim] !== 'second') return;
    const follow: LocalEvent[] = [];
    if (state.connected) {
      const troubled = this.#troubled(state);
      if (troubled === null) return;
      const cut = this.#disconnect(troubled, prim, follow);
      const next = follow.reduce((all, event) => this.event(all, prim, event), cut);
      list.push({ name: 'link down', next });
      return;
    }
    const { engine } = nodeOf(state, prim);
    const floor = nodeOf(state, 1 - prim).engine.floor;
    if (this.rules.receiverChecksEpoch && engine.epoch < floor) return;
    const told = engine.required ? 'inSync' : 'resync';
    let next: PairState = { ...state, connected: true };
    next = this.event(next, 1 - prim, { kind: 'enginePeer', peer: 'connected' });
    next = this.event(next, prim, { kind: 'enginePeer', peer: 'connected' });
    list.push({ name: 'link up', next: this.#tell(next, prim, told) });
  }

  /** What the primary's engine says of the peer's copy. */
  #tell(state: PairState, i: number, told: 'resync' | 'caughtUp' | 'inSync'): PairState {
    const node = nodeOf(state, i);
    const next = withNode(state, i, { ...node, engine: { ...node.engine, told } });
    const { permit, required } = node.engine;
    return this.event(next, i, { kind: 'peerCopy', copy: told, epoch: permit, alone: !required });
  }

  #engine(state: PairState, i: number, node: PairNode, list: Move<PairState>[]): void {
    if (node.engine.role === 'prim') this.#serve(state, i, node, list);
    for (const message of state.messages.values()) {
      if (message.kind === 'swap' || message.to !== i) continue;
      switch (message.kind) {
        case 'write':
          this.#takeWrite(state, i, node, message, list);
          break;
        case 'have':
          this.#takeHave(state, i, node, message, list);
          break;
        case 'sync':
          this.#takeSync(state, i, node, message, list);
          break;
        case 'whole':
          this.#takeWhole(state, i, node, message, list);
      }
    }
  }

  #serve(state: PairState, i: number, node: PairNode, list: Move<PairState>[]): void {
    const { epoch, required, peerHas } = node.engine;
    const { session } = node;
    const to = 1 - i;
    if (state.writes < this.bounds.writes) {
      const write = state.writes + 1;
      const log = [...node.log, write];
      const next = { ...withNode(state, i, { ...node, log }), writes: write };
      const at = log.length;
      const sent = required ? send(next, { kind: 'write', to, epoch, session, at, write }) : next;
      list.push({ name: `write ${i}`, next: sent });
    }
    const first = node.log.findIndex((write) => !state.acked.includes(write));
    if (first >= 0) {
      const has = !required || peerHas > first || !this.rules.ackNeedsPeer;
      const acked = [...state.acked, node.log[first] ?? 0].toSorted((a, b) => a - b);
      if (has) list.push({ name: `ack ${i}`, next: { ...state, acked } });
    }
    if (!required && node.engine.told !== 'none') {
      const next = send(state, { kind: 'sync', to, epoch, session: epoch, log: node.log });
      if (next !== state) list.push({ name: `sync ${i}`, next });
    }
  }

  #takeWrite(
    state: PairState,
    i: number,
    node: PairNode,
    message: PairMessage & { readonly kind: 'write' | 'have' | 'whole' },
    list: Move<PairState>[],
  ): void {
    const { epoch, session, at, write } = message;
    const checks = this.rules.receiverChecksEpoch;
    if (node.engine.role !== 'second' || node.copy !== 'inSync') return;
    if (checks && (epoch < node.engine.floor || session !== node.session)) return;
    if (node.log.length !== at - 1) return;
    const floor = Math.max(node.engine.floor, epoch);
    const next = { ...node, log: [...node.log, write], engine: { ...node.engine, floor } };
    const have = { kind: 'have', to: 1 - i, epoch, session, at, write: 0 } as const;
    list.push({ name: `take write ${write} at ${i}`, next: send(withNode(state, i, next), have) });
  }

  #takeHave(
    state: PairState,
    i: number,
    node: PairNode,
    message: PairMessage & { readonly kind: 'write' | 'have' | 'whole' },
    list: Move<PairState>[],
  ): void {
    const { engine } = node;
    if (engine.role !== 'prim' || message.session !== node.session || !engine.required) return;
    if (message.at <= engine.peerHas || message.epoch > engine.epoch) return;
    const next = { ...node, engine: { ...engine, peerHas: message.at } };
    list.push({ name: `have ${i}`, next: withNode(state, i, next) });
  }

  #takeSync(
    state: PairState,
    i: number,
    node: PairNode,
    message: PairMessage & { readonly kind: 'sync' },
    list: Move<PairState>[],
  ): void {
    const { epoch, session, log } = message;
    const longer = session === node.session && log.length >= node.log.length;
    const isNewest = session > node.session || longer || !this.rules.syncMustBeNewest;
    if (node.engine.role !== 'second' || epoch < node.engine.floor || !isNewest) return;
    const at = log.length;
    const isThere = node.copy === 'inSync' && session === node.session;
    if (isThere && log.join() === node.log.join()) return;
    const floor = Math.max(node.engine.floor, epoch);
    const changed = { ...node, log, session, engine: { ...node.engine, floor } };
    const whole = { kind: 'whole', to: 1 - i, epoch, session, at, write: 0 } as const;
    let next = send(withNode(state, i, { ...changed, copy: 'inSync' }), whole);
    if (node.copy !== 'inSync') next = this.event(next, i, { kind: 'copy', copy: 'inSync' });
    list.push({ name: `take sync ${i}`, next });
  }

  /** First caught up; then the peer is required, and only then it is in sync. */
  #takeWhole(
    state: PairState,
    i: number,
    node: PairNode,
    { epoch, session, at }: PairMessage & { readonly kind: 'write' | 'have' | 'whole' },
    list: Move<PairState>[],
  ): void {
    const { engine } = node;
    if (engine.role !== 'prim' || engine.required || session !== engine.epoch) return;
    if (epoch !== engine.epoch || at !== node.log.length || !state.connected) return;
    if (engine.told !== 'caughtUp') {
      list.push({ name: `caught up ${i}`, next: this.#tell(state, i, 'caughtUp') });
      return;
    }
    const joining = { ...node, session, engine: { ...engine, required: true, peerHas: at } };
    list.push({ name: `in sync ${i}`, next: this.#tell(withNode(state, i, joining), i, 'inSync') });
  }

  // The arbiter.

  #arbiter(state: PairState, list: Move<PairState>[]): void {
    for (const m of state.messages.values()) {
      if (m.kind !== 'swap' || !isEqual(m.from, state.record)) continue;
      if (m.record.epoch > this.bounds.epochs) continue;
      const i = m.record.primary;
      const next = [0, 1].reduce((all, n) => noticing(all, n, m.record), state);
      list.push({ name: `swap of ${i}`, next: { ...next, record: m.record } });
    }
  }

  /** A backup of the arbiter, for the rule that is against it. */
  rolledBack(state: PairState): Move<PairState>[] {
    const { record } = state;
    if (record === null || record.epoch < 2) return [];
    const older = { ...record, epoch: record.epoch - 1, primary: 0, inSync: [0, 1] };
    return [{ name: 'roll back', next: { ...state, record: older } }];
  }
}

function isTimeless({ kind }: LocalEvent): boolean {
  return kind === 'timer' || kind === 'message';
}
