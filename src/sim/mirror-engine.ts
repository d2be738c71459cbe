/**
 * Model of the replication engine of one server (native/replica): a log of changes, what of it is
 * durable, a superblock, one connection. Nothing is acknowledged without the peer unless an order
 * says so, and that is saved. Which of two copies goes on, and how, is in mirror-copy.ts.
 *
 * The real engine also keeps the highest epoch that it was told on its disk. The model does not: that
 * the promise is durable is the machine's to see to, and must show here when it does not.
 */
import type { MirrorRules } from '../core/mirror-rules.ts';
import type { CopyState, EngineOrder, PeerCopy } from '../core/mirror-types.ts';
import { addEpoch, commonEnd, type CopyDisk, type Entry, rejoin, takeBack } from './mirror-copy.ts';

interface OfStream {
  readonly session: number;
  readonly epoch: number;
}

export type StreamMessage =
  /** after: LSN before the first of them. */
  | (OfStream & {
      readonly kind: 'records';
      readonly after: number;
      readonly entries: readonly Entry[];
    })
  | (OfStream & { readonly kind: 'state'; readonly run: number; readonly log: readonly Entry[] })
  | (OfStream & {
      readonly kind: 'synced';
      readonly run: number;
      readonly lsn: number;
      readonly history: CopyDisk['history'];
    })
  | (OfStream & { readonly kind: 'ack'; readonly lsn: number })
  | (OfStream & { readonly kind: 'whole'; readonly run: number; readonly lsn: number })
  /** A secondary that cannot write any more says so. */
  | (OfStream & { readonly kind: 'leave' });

export type EngineNews =
  | { readonly kind: 'enginePeer'; readonly peer: 'connected' | 'lost' | 'left' }
  /** Of a primary: what is known of the peer's copy. */
  | {
      readonly kind: 'peerCopy';
      readonly copy: PeerCopy;
      readonly epoch: number;
      readonly alone: boolean;
    }
  /** What the superblock says of this copy. */
  | { readonly kind: 'copy'; readonly copy: CopyState };

/** The rules that the engine keeps, of those of the machine. */
export type EngineRules = Pick<
  MirrorRules,
  'ackNeedsPeer' | 'syncMustBeNewest' | 'receiverChecksEpoch'
>;

export interface EngineHost {
  readonly node: number;
  readonly rules: EngineRules;
  /** 0 <= x < 1, from the seed. */
  chance(): number;
  /** Runs it later on the engine's own threads; never once the server has lost its power. */
  after(ms: number, act: () => void): void;
  send(message: StreamMessage): void;
  /** This side's connection is over. */
  hungUp(session: number): void;
  news(news: EngineNews): void;
  /** The application's change is acknowledged. */
  acknowledged(lsn: number, entry: Entry): void;
  /** What is in the log, or how much of it is durable, became less or other. */
  changed(): void;
  /** How long a write to the disk takes now. */
  diskMs(): number;
}

export type Done = (why: string | null) => void;

export class SimEngine {
  readonly host: EngineHost;
  readonly disk: CopyDisk;
  role: 'none' | 'prim' | 'second' = 'none';
  /** Number of the connection on both sides; 0: none. */
  session = 0;
  /** prim: epoch of what is appended. second: nothing of a lower one is taken. In memory only. */
  epoch = 0;
  /** prim: epoch of the newest order that let it acknowledge alone. */
  permit = 0;
  /** prim: number of the resync under way; 0: none. */
  run = 0;
  /** Of the peer's copy. */
  #told: PeerCopy = 'none';
  #streaming = false;
  #sent = 0;
  #peerDurable = 0;
  #acked = 0;
  /** second: the newest whole state that it took. */
  #stateRun = 0;
  #stateLength = 0;
  readonly #orders: { readonly order: EngineOrder; readonly done: Done }[] = [];

  constructor(host: EngineHost, disk: CopyDisk) {
    this.host = host;
    this.disk = disk;
  }

  get last(): number {
    return this.disk.log.length;
  }

  /** Acknowledges without the peer. */
  get alone(): boolean {
    return this.role === 'prim' && !this.disk.required;
  }

  /** One after the other, whoever gave them. */
  order(order: EngineOrder, done: Done): void {
    this.#orders.push({ order, done });
    if (this.#orders.length === 1) this.#carryOut();
  }

  #carryOut(): void {
    const next = this.#orders[0];
    if (next === undefined) return;
    const done: Done = (why) => {
      next.done(why);
      this.#orders.shift();
      this.#carryOut();
    };
    const { order } = next;
    switch (order.what) {
      case 'prim':
        return this.#close(() => this.#openPrim(order.epoch, order.force, done));
      case 'second':
        return this.#close(() => this.#openSecond(order.floor, order.way, done));
      case 'close':
        return this.#close(() => done(null));
      case 'alone':
        return this.#goAlone(order.epoch, done);
      case 'joined':
        return this.#joined(order.epoch, done);
    }
  }

  #openPrim(epoch: number, force: boolean, done: Done): void {
    const { disk } = this;
    if (disk.state === 'failed') return done('this copy has failed');
    const isWhole = disk.state === 'inSync' || disk.state === 'none';
    if (!isWhole && !force) return done('this copy is not in sync');
    this.#save(() => {
      if (disk.state === 'inconsistent') takeBack(disk);
      disk.state = 'inSync';
      disk.role = 'prim';
      disk.clean = false;
      // All that is here was taken for good by the one who holds the epoch.
      disk.durable = this.last;
      this.role = 'prim';
      this.#setAlone(epoch);
      this.#acked = this.last;
      this.host.news({ kind: 'copy', copy: 'inSync' });
      done(null);
    });
  }

  #openSecond(floor: number, way: 'plain' | 'fullsync' | 'discard', done: Done): void {
    const { disk } = this;
    this.#save(() => {
      if (disk.role !== 'prim' || disk.clean) disk.role = 'second';
      disk.anew = way !== 'plain';
      if (disk.anew && disk.state === 'inSync') disk.state = 'stale';
      this.role = 'second';
      this.epoch = Math.max(this.epoch, floor);
      this.#stateRun = 0;
      this.host.news({ kind: 'copy', copy: disk.state });
      done(null);
    });
  }

  #goAlone(epoch: number, done: Done): void {
    if (this.role !== 'prim') return done('it is no primary');
    this.#save(() => {
      if (this.role !== 'prim') return done('it is no primary');
      const followed = !this.disk.left;
      this.#setAlone(epoch);
      // In a resync the peer knows that it does not follow.
      if (followed) this.disconnected();
      this.#acknowledge();
      done(null);
    });
  }

  #setAlone(epoch: number): void {
    this.disk.required = false;
    this.disk.left = true;
    this.epoch = this.permit = epoch;
    addEpoch(this.disk, { epoch, first: this.last, node: this.host.node, alone: true });
  }

  /** What is appended from now on is of that epoch; who is required stays as it is. */
  #joined(epoch: number, done: Done): void {
    if (this.role !== 'prim') return done('it is no primary');
    this.#save(() => {
      if (this.role === 'prim' && epoch > this.epoch) {
        this.epoch = epoch;
        const alone = !this.disk.required;
        addEpoch(this.disk, { epoch, first: this.last, node: this.host.node, alone });
      }
      done(null);
    });
  }

  /** In order: while the connection is there, the peer gets everything. */
  #close(then: () => void): void {
    if (this.role === 'none') return then();
    const byMs = this.role === 'prim' && this.disk.required ? 1500 : 0;
    const look = (leftMs: number): void => {
      const drained = this.session === 0 || this.#peerDurable >= this.last;
      if (!drained && leftMs > 0 && this.role === 'prim') {
        this.host.after(10, () => look(leftMs - 10));
        return;
      }
      this.#save(() => {
        this.disk.durable = this.last;
        this.disk.clean = true;
        this.disconnected();
        this.role = 'none';
        then();
      });
    };
    look(byMs);
  }

  /** The application writes and syncs. False: there is nothing to write to. */
  append(id: number): boolean {
    if (this.role !== 'prim' || this.disk.state === 'failed') return false;
    this.disk.log.push({ epoch: this.epoch, id });
    const lsn = this.last;
    this.host.after(this.host.diskMs(), () => {
      if (lsn > this.last) return;
      this.disk.durable = Math.max(this.disk.durable, lsn);
      this.#acknowledge();
    });
    this.#stream();
    return true;
  }

  /** Nothing can be written here any more. */
  fail(): void {
    if (this.disk.state === 'failed') return;
    this.disk.state = 'failed';
    if (this.role === 'none') return;
    this.host.news({ kind: 'copy', copy: 'failed' });
    const { session, epoch } = this;
    if (this.role === 'second' && session !== 0) this.host.send({ kind: 'leave', session, epoch });
  }

  /** What an agent that was started again asks it. */
  tellAll(): void {
    this.host.news({ kind: 'copy', copy: this.disk.state });
    if (this.role === 'none') return;
    this.host.news({ kind: 'enginePeer', peer: this.session === 0 ? 'lost' : 'connected' });
    if (this.role === 'prim') this.#tellPeer(this.session === 0 ? 'none' : this.#told);
  }

  #tellPeer(copy: PeerCopy): void {
    this.#told = copy;
    this.host.news({ kind: 'peerCopy', copy, epoch: this.permit, alone: this.alone });
  }

  #acknowledge(): void {
    const { disk } = this;
    if (this.role !== 'prim' || disk.state === 'failed') return;
    const needed = disk.required && this.host.rules.ackNeedsPeer;
    const upTo = needed ? Math.min(disk.durable, this.#peerDurable) : disk.durable;
    while (this.#acked < upTo) {
      const entry = disk.log[this.#acked];
      if (entry === undefined) return;
      this.#acked++;
      this.host.acknowledged(this.#acked, entry);
    }
  }

  #stream(): void {
    if (!this.#streaming || this.session === 0 || this.#sent >= this.last) return;
    const { session, epoch } = this;
    const entries = this.disk.log.slice(this.#sent);
    this.host.send({ kind: 'records', session, epoch, after: this.#sent, entries });
    this.#sent = this.last;
  }

  /** The two engines met, as primary and secondary. False: the connection does not stay. */
  connectedTo(target: SimEngine, session: number): boolean {
    const isOld = this.host.rules.receiverChecksEpoch && this.epoch < target.epoch;
    const what = isOld ? null : rejoin(this.disk, target.disk);
    if (what === null) return false;
    this.session = target.session = session;
    target.epoch = Math.max(target.epoch, this.epoch);
    this.host.news({ kind: 'enginePeer', peer: 'connected' });
    target.host.news({ kind: 'enginePeer', peer: 'connected' });
    // What it had received and not made durable, it may have lost.
    const common = commonEnd(this.disk.log, target.disk.log);
    this.#peerDurable = what === 'follow' ? Math.min(common, target.disk.durable) : 0;
    this.#streaming = what === 'follow';
    this.#sent = common;
    if (what === 'follow') {
      this.#tellPeer('inSync');
      this.#stream();
      this.#acknowledge();
      return true;
    }
    this.disk.left = true;
    this.run = 1 + Math.floor(this.host.chance() * 1e9);
    this.#tellPeer('resync');
    target.#beginRun(what === 'catchUp', common);
    const { run } = this;
    const workMs = what === 'catchUp' ? 1 : 5 + this.host.chance() * 400;
    this.host.after(workMs, () => this.#stated(run, what === 'state'));
    return true;
  }

  /** All that differed was sent: from here on the log goes on. */
  #stated(run: number, whole: boolean): void {
    if (this.run !== run) return;
    if (whole) {
      const { session, epoch } = this;
      const log = this.disk.log.slice();
      this.host.send({ kind: 'state', session, epoch, run, log });
      this.#sent = log.length;
    }
    this.#streaming = true;
    this.#stream();
    this.#closeIn(run);
  }

  /** Once the peer has had everything, the resync may end. */
  #closeIn(run: number): void {
    this.host.after(2 + this.host.chance() * 30, () => {
      if (this.run !== run) return;
      if (this.#peerDurable < this.last - 2) return this.#closeIn(run);
      this.#tellPeer('caughtUp');
      this.host.after(this.host.diskMs(), () => this.#endRun(run));
    });
  }

  /** Nothing without the peer, durably; then the record that ends the resync. */
  #endRun(run: number): void {
    if (this.run !== run) return;
    const { disk, session, epoch } = this;
    if (!disk.required) {
      addEpoch(disk, { epoch, first: this.last, node: this.host.node, alone: false });
    }
    disk.required = true;
    disk.left = false;
    this.#tellPeer('caughtUp');
    const { history } = disk;
    this.host.send({ kind: 'synced', session, epoch, run, lsn: this.last, history });
  }

  /** Durable before anything of the resync is taken. */
  #beginRun(catchUp: boolean, common: number): void {
    const { disk } = this;
    this.#stateRun = 0;
    if (!catchUp && disk.state !== 'inconsistent') {
      disk.base = disk.log.slice(0, Math.max(common, disk.durable));
      disk.state = 'inconsistent';
    } else if (catchUp) disk.state = 'stale';
    this.host.changed();
    this.host.news({ kind: 'copy', copy: disk.state });
  }

  receive(message: StreamMessage): void {
    const { session, epoch } = message;
    const checks = this.host.rules.receiverChecksEpoch;
    if (checks && (session !== this.session || this.session === 0)) return;
    if (this.role === 'second' && checks && epoch < this.epoch) return;
    switch (message.kind) {
      case 'records':
        return this.#takeRecords(message);
      case 'state':
        return this.#takeState(message);
      case 'synced':
        return this.#takeSynced(message);
      case 'ack':
        if (this.role !== 'prim') return;
        this.#peerDurable = Math.max(this.#peerDurable, message.lsn);
        return this.#acknowledge();
      case 'whole':
        return this.#takeWhole(message);
      case 'leave':
        if (this.role === 'prim') this.host.news({ kind: 'enginePeer', peer: 'left' });
    }
  }

  get #takes(): boolean {
    return this.role === 'second' && this.disk.state !== 'failed';
  }

  #takeRecords(message: StreamMessage & { readonly kind: 'records' }): void {
    if (!this.#takes) return;
    if (message.after !== this.last) return this.#gap(message);
    this.epoch = Math.max(this.epoch, message.epoch);
    this.disk.log.push(...message.entries);
    this.#journal(message.session, message.epoch, this.last);
  }

  /** Something is missing before it: the connection is to begin anew. */
  #gap({ session }: StreamMessage): void {
    if (session === this.session) this.disconnected();
  }

  #journal(session: number, epoch: number, lsn: number): void {
    this.host.after(this.host.diskMs(), () => {
      if (!this.#takes || lsn > this.last) return;
      if (this.host.rules.receiverChecksEpoch && session !== this.session) return;
      this.disk.durable = Math.max(this.disk.durable, lsn);
      this.host.send({ kind: 'ack', session, epoch, lsn });
    });
  }

  #takeState(message: StreamMessage & { readonly kind: 'state' }): void {
    if (!this.#takes) return;
    const { run, log } = message;
    const isOld = this.disk.state !== 'inconsistent';
    const isShort = run === this.#stateRun && log.length < this.#stateLength;
    if (this.host.rules.syncMustBeNewest && (isOld || isShort)) return;
    this.#stateRun = run;
    this.#stateLength = log.length;
    this.disk.log = log.slice();
    this.disk.durable = Math.min(this.disk.durable, log.length);
    this.host.changed();
    this.#journal(message.session, message.epoch, log.length);
  }

  #takeSynced(message: StreamMessage & { readonly kind: 'synced' }): void {
    const { session, epoch, run, lsn } = message;
    this.host.after(this.host.diskMs(), () => {
      if (!this.#takes) return;
      if (this.host.rules.receiverChecksEpoch && session !== this.session) return;
      if (lsn > this.last) return this.#gap(message);
      const { disk } = this;
      disk.durable = Math.max(disk.durable, lsn);
      disk.state = 'inSync';
      disk.base = null;
      disk.role = 'second';
      disk.clean = false;
      disk.anew = false;
      disk.history = message.history;
      this.epoch = Math.max(this.epoch, epoch);
      this.host.changed();
      this.host.news({ kind: 'copy', copy: 'inSync' });
      this.host.send({ kind: 'whole', session, epoch, run, lsn });
    });
  }

  #takeWhole(message: StreamMessage & { readonly kind: 'whole' }): void {
    // Alone again since: the peer hears of that when it comes back.
    if (this.role !== 'prim' || message.run !== this.run || this.disk.left) return;
    this.run = 0;
    this.#peerDurable = Math.max(this.#peerDurable, message.lsn);
    this.#tellPeer('inSync');
    this.#acknowledge();
  }

  /** This side learns that the connection is over, or ends it. */
  disconnected(): void {
    const { session } = this;
    if (session === 0) return;
    this.session = 0;
    this.#streaming = false;
    // Where its end was on the way, the peer says so when it is back.
    this.run = 0;
    this.host.hungUp(session);
    this.host.news({ kind: 'enginePeer', peer: 'lost' });
    if (this.role === 'prim' && !this.alone) this.#tellPeer('none');
  }

  /** The superblock: old or new after a loss of power, never half. */
  #save(then: () => void): void {
    this.host.after(this.host.diskMs(), then);
  }
}
