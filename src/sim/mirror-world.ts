/**
 * The world of a simulated mirror: time, two servers, an arbiter, the network between them, a client.
 * Everything is drawn from one seed and runs in one thread: a seed is a replay.
 *
 * The network has four planes (heartbeats, words of the agents, the stream of changes, the
 * arbiter), each cut by direction: a cut may take all of them, or one.
 */
import type {
  ArbiterAnswer,
  ArbiterRecord,
  Message,
  MirrorConfig,
  MirrorRules,
} from '../core/mirror.ts';
import { Agenda, Chance, Trace } from './kit.ts';
import { MirrorChecks } from './mirror-checks.ts';
import type { StreamMessage } from './mirror-engine.ts';
import type { KeeperTiming, MirrorBeat } from './mirror-keeper.ts';
import { MirrorNode } from './mirror-node.ts';
import { type ArbiterRequest, SimRegister } from './mirror-register.ts';

export interface MirrorNetwork {
  readonly loss: number;
  readonly duplicate: number;
  readonly delayMs: number;
  /** Chance that something is late by up to slowMs: later ones overtake it. */
  readonly slow: number;
  readonly slowMs: number;
  /** Chance that the arbiter's request or answer is late by up to arbiterSlowMs. */
  readonly arbiterSlow: number;
  readonly arbiterSlowMs: number;
}

export const planes = ['beat', 'talk', 'stream', 'arbiter'] as const;
export type Plane = (typeof planes)[number];
/** Number of the arbiter in the network. */
export const arbiter = 2;

export interface MirrorSetting {
  readonly rules: MirrorRules;
  readonly timing: KeeperTiming;
  readonly config: (me: number) => MirrorConfig;
  /** The application writes by itself, also where no client reaches it. */
  readonly ownWrites: boolean;
  /** Clocks run apart by up to this share, each. */
  readonly skew: number;
}

/** The arbiter's client waits for so long. */
const arbiterTimeoutMs = 1000;

export class MirrorWorld {
  readonly chance: Chance;
  network: MirrorNetwork;
  readonly setting: MirrorSetting;
  readonly agenda = new Agenda<() => void>();
  readonly nodes: readonly [MirrorNode, MirrorNode];
  /** The arbiter's, from the start. */
  readonly register = new SimRegister();
  /** Those that took its place, each empty at first, and by which one each server goes. */
  readonly #registers = [this.register];
  readonly #used = [this.register, this.register];
  readonly checks: MirrorChecks;
  nowMs = 0;
  events = 0;
  steps = 0;
  /** How long the arbiter takes to answer, beside the network. */
  arbiterMs = 1;
  readonly trace = new Trace(160);
  readonly #cuts: Record<Plane, number[][]>;
  #session = 0;
  #connectAt = 0;
  #streamAt = [0, 0];
  #writes = 0;

  constructor(seed: number, setting: MirrorSetting, network: MirrorNetwork) {
    this.chance = new Chance(seed);
    this.setting = setting;
    this.network = network;
    const square = (): number[][] => [0, 1, 2].map(() => [0, 0, 0]);
    this.#cuts = { beat: square(), talk: square(), stream: square(), arbiter: square() };
    this.nodes = [new MirrorNode(this, 0), new MirrorNode(this, 1)];
    this.checks = new MirrorChecks(this);
    this.#client();
  }

  node(id: number): MirrorNode {
    return id === 0 ? this.nodes[0] : this.nodes[1];
  }

  at(timeMs: number, act: () => void): void {
    this.agenda.push(Math.max(timeMs, this.nowMs), act);
  }

  after(ms: number, act: () => void): void {
    this.agenda.push(this.nowMs + ms, act);
  }

  record(who: string, text: string): void {
    this.trace.add(this.nowMs, `${who} ${text}`);
    this.mix(text.length);
  }

  mix(value: number): void {
    this.trace.mix(this.nowMs, value);
  }

  /** Runs until a time, or until the condition (asked every 100 ms) holds; tells which. */
  run(untilMs: number, done: (() => boolean) | null): boolean {
    let askMs = this.nowMs;
    for (;;) {
      const next = this.agenda.pop();
      if (next === null || next.at > untilMs) {
        if (next !== null) this.agenda.push(next.at, next.item);
        this.nowMs = untilMs;
        return done !== null && done();
      }
      this.nowMs = next.at;
      this.events++;
      next.item();
      this.checks.answers();
      if (done !== null && this.nowMs - askMs >= 100) {
        askMs = this.nowMs;
        if (done()) return true;
      }
    }
  }

  isCut(plane: Plane, from: number, to: number): boolean {
    return this.#cuts[plane][from]?.[to] !== 0;
  }

  cut(plane: Plane, from: number, to: number, on: boolean): void {
    const row = this.#cuts[plane][from];
    if (row === undefined) return;
    row[to] = Math.max(0, (row[to] ?? 0) + (on ? 1 : -1));
    if (plane === 'stream' && on) this.#breakLater();
  }

  heal(): void {
    for (const plane of planes) for (const row of this.#cuts[plane]) row.fill(0);
  }

  #delay(): number {
    const { chance, network } = this;
    const usual = 0.05 + chance.unit() * network.delayMs;
    return network.slow > 0 && chance.is(network.slow)
      ? usual + chance.unit() * network.slowMs
      : usual;
  }

  #copies(): number {
    const { chance, network } = this;
    if (network.loss > 0 && chance.is(network.loss)) return 0;
    return network.duplicate > 0 && chance.is(network.duplicate) ? 2 : 1;
  }

  sendBeat(beat: MirrorBeat): void {
    const to = 1 - beat.from;
    if (this.isCut('beat', beat.from, to)) return;
    for (let copy = this.#copies(); copy > 0; copy--) {
      this.after(this.#delay(), () => {
        if (!this.isCut('beat', beat.from, to)) this.node(to).receiveBeat(beat);
      });
    }
  }

  sendMessage(from: number, message: Message): void {
    const to = 1 - from;
    if (this.isCut('talk', from, to)) return;
    for (let copy = this.#copies(); copy > 0; copy--) {
      // An old one that comes late: what a proxy kept, or a connection that was slow to end.
      const lateMs = this.network.slow > 0 && this.chance.is(0.02) ? this.chance.unit() * 5000 : 0;
      this.after(this.#delay() + lateMs, () => {
        if (this.isCut('talk', from, to)) return;
        const node = this.node(to);
        node.take((nowMs) => ({ kind: 'message', nowMs, message }));
      });
    }
  }

  /** The latest record that any register ever had. */
  get newest(): ArbiterRecord | null {
    let newest: ArbiterRecord | null = null;
    for (const { newest: one } of this.#registers) {
      if (one === null) continue;
      const isLater =
        newest === null ||
        one.incarnation > newest.incarnation ||
        (one.incarnation === newest.incarnation && one.epoch > newest.epoch);
      if (isLater) newest = one;
    }
    return newest;
  }

  /** A server goes by a new register from now on; the other one still by the former. */
  moveArbiter(id: number): void {
    const register = new SimRegister();
    this.#registers.push(register);
    this.#used[id] = register;
  }

  /** A server goes by the register of the other one. */
  followArbiter(id: number): void {
    this.#used[id] = this.#registerOf(1 - id);
  }

  #registerOf(id: number): SimRegister {
    return this.#used[id] ?? this.register;
  }

  /** `answer` is called once at most; a request may be heard twice, or long after that. */
  ask(from: number, request: ArbiterRequest, answer: (answer: ArbiterAnswer) => void): void {
    let answered = false;
    const once = (what: ArbiterAnswer): void => {
      if (answered) return;
      answered = true;
      answer(what);
    };
    const register = this.#registerOf(from);
    const isDown = register.down || this.isCut('arbiter', from, arbiter);
    if (isDown && this.chance.is(0.5)) {
      this.after(this.#delay(), () => once({ outcome: 'unreachable', why: 'refused' }));
      return;
    }
    const copies = this.network.duplicate > 0 && this.chance.is(this.network.duplicate) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      this.after(this.#arbiterDelay(), () => this.#arrive(register, from, request, once));
    }
    const why = 'no answer';
    this.after(arbiterTimeoutMs, () =>
      once(request.kind === 'read' ? { outcome: 'unreachable', why } : { outcome: 'unknown', why }),
    );
  }

  #arbiterDelay(): number {
    const { chance, network } = this;
    const isLate = network.arbiterSlow > 0 && chance.is(network.arbiterSlow);
    return this.#delay() + (isLate ? chance.unit() * network.arbiterSlowMs : 0);
  }

  #arrive(
    register: SimRegister,
    from: number,
    request: ArbiterRequest,
    once: (answer: ArbiterAnswer) => void,
  ): void {
    if (register.down || this.isCut('arbiter', from, arbiter)) return;
    const before = register.record;
    const what = register.answer(request);
    if (register.record !== before) {
      const { epoch, primary, inSync } = register.record ?? { inSync: [] };
      this.record('arbiter', `epoch ${epoch} primary ${primary} in sync ${inSync.join()}`);
      this.checks.recordChanged();
    }
    this.after(this.arbiterMs * this.chance.unit() + this.#arbiterDelay(), () => {
      // What was asked of a register that it does not go by any more is not answered.
      const isHeard = this.#registerOf(from) === register && !register.down;
      if (isHeard && !this.isCut('arbiter', arbiter, from)) once(what);
    });
  }

  /** In order on one connection; what an ended one had on its way may still come up, late. */
  sendStream(from: number, message: StreamMessage): void {
    const to = 1 - from;
    const at = Math.max(this.#streamAt[from] ?? 0, this.nowMs + this.#delay());
    this.#streamAt[from] = at;
    this.at(at, () => this.#stream(from, to, message));
  }

  #stream(from: number, to: number, message: StreamMessage): void {
    const isOver = message.session !== this.node(to).engine.session;
    if (this.isCut('stream', from, to) || (isOver && !this.chance.is(0.3))) {
      // Not lost while the connection lives, nor surely after.
      if (this.chance.is(0.2)) {
        this.after(20 + this.chance.unit() * 400, () => this.#stream(from, to, message));
      } else if (!isOver) this.#break();
      return;
    }
    this.node(to).receiveStream(message);
  }

  /** A side that hears nothing gives the connection up. */
  #breakLater(): void {
    const session = this.nodes[0].engine.session;
    this.after(this.chance.between(50, 1500), () => {
      const isSame = session !== 0 && this.nodes[0].engine.session === session;
      if (isSame && (this.isCut('stream', 0, 1) || this.isCut('stream', 1, 0))) this.#break();
    });
  }

  #break(): void {
    for (const node of this.nodes) {
      const { session } = node.engine;
      this.after(this.chance.unit() * 20, () => {
        if (node.engine.session === session) node.engineRuns(() => node.engine.disconnected());
      });
    }
    this.connectSoon();
  }

  /** One engine ended its side: the other hears of it, where it can. */
  streamEnded(by: number, session: number): void {
    const other = this.node(1 - by);
    const quickly = !this.isCut('stream', by, 1 - by) && this.node(by).up;
    const ms = quickly ? this.chance.unit() * 2 : this.chance.between(200, 2000);
    this.after(ms, () => {
      other.engineRuns(() => {
        if (other.engine.session === session) other.engine.disconnected();
      });
    });
    this.connectSoon();
  }

  /** The engines look for one another all the time. */
  connectSoon(fromMs = 5, toMs = 120): void {
    if (this.#connectAt > this.nowMs) return;
    const at = this.nowMs + this.chance.between(fromMs, toMs);
    this.#connectAt = at;
    this.at(at, () => this.#connect());
  }

  #connect(): void {
    const [a, b] = this.nodes;
    const source = a.engine.role === 'prim' ? a : b;
    const target = source === a ? b : a;
    const isPair = source.engine.role === 'prim' && target.engine.role === 'second';
    const isFree = a.engine.session === 0 && b.engine.session === 0;
    const isOpen = !this.isCut('stream', 0, 1) && !this.isCut('stream', 1, 0);
    const runs = source.engineAwake && target.engineAwake;
    if (isPair && isOpen && isFree && runs) {
      if (source.engine.connectedTo(target.engine, ++this.#session)) return;
    }
    if (isPair && isFree) this.after(0, () => this.connectSoon(100, 400));
  }

  /** A client writes to whoever answers for the address, or the application wherever it runs. */
  #client(): void {
    this.after(this.chance.between(5, 80), () => {
      this.#client();
      for (const node of this.nodes) {
        const isAsked = node.answers || this.setting.ownWrites;
        if (!isAsked || !node.app.runs || !node.engineAwake) continue;
        if (node.engine.append(this.#writes + 1)) this.#writes++;
      }
    });
  }
}
