/**
 * The replication engine of a mirror that decides for itself: orders of the core become verbs of the
 * engine's control socket, and what the engine's status says becomes events of the core. Nothing is
 * decided here.
 */
import { join } from 'node:path';
import type { ModuleConfig } from '../config/model.ts';
import type { CopyState, EngineOrder, MirrorEvent, PeerCopy } from '../core/mirror.ts';
import { moduleDirs } from '../module/name.ts';
import { MirrorEngine } from './mirror-engine.ts';
import type { MirrorPorts, OpenWay } from './mirror-ports.ts';
import type { MirrorRecord, MirrorRole } from './mirror-state.ts';
import { readSuperblock, type Superblock } from './pair-super.ts';

type Of<K extends MirrorEvent['kind']> = Omit<Extract<MirrorEvent, { kind: K }>, 'nowMs'>;
/** What the core hears of an engine; its time is that at which it is heard. */
export type EngineNews =
  | Of<'engineDone'>
  | Of<'enginePeer'>
  | Of<'peerCopy'>
  | Of<'copy'>
  | Of<'engineGone'>;

export interface PairEngineHooks {
  readonly news: (event: EngineNews) => void;
  /** Status may show something else. */
  readonly changed: () => void;
}

/** Draining, unmounting and the farewell take 8 s at most: what takes longer hangs, and is killed. */
const closeLimitMs = 20_000;

const copies: Readonly<Record<string, CopyState>> = {
  none: 'none',
  in_sync: 'inSync',
  outdated: 'stale',
  failed: 'failed',
  inconsistent: 'inconsistent',
};
const peerCopies: Readonly<Record<string, PeerCopy>> = {
  none: 'none',
  resync: 'resync',
  caught_up: 'caughtUp',
  in_sync: 'inSync',
};

export class PairEngine {
  readonly mirror: MirrorEngine;
  readonly #config: () => ModuleConfig;
  readonly #ports: MirrorPorts;
  readonly #peer: number;
  readonly #hooks: PairEngineHooks;
  /** What must be known before an order is carried out. */
  #before: Promise<unknown> = Promise.resolve();
  /** Of the order under way: what the status says belongs to what was before it, or after. */
  #busy = false;
  #role: MirrorRole | null = null;
  /** What the core was told last; null: nothing since the last order. */
  #toldPeer: 'connected' | 'lost' | 'left' | null = null;
  #toldPeerCopy = '';
  #toldCopy: CopyState | null = null;
  /** Runs while the engines are apart and the core does not know it yet. */
  #apart: NodeJS.Timeout | null = null;
  /** Up to which change the peer had acknowledged when that was looked at last. */
  #acked: string | undefined;

  constructor(
    config: () => ModuleConfig,
    record: MirrorRecord,
    ports: MirrorPorts,
    peer: number,
    hooks: PairEngineHooks,
  ) {
    this.#config = config;
    this.#ports = ports;
    this.#peer = peer;
    this.#hooks = hooks;
    this.mirror = new MirrorEngine(config, record, ports, {
      changed: () => this.#look(),
      gone: () => this.#gone('its processes ended'),
      left: () => this.#tellPeer('left'),
    });
  }

  /** What is on the disk of a server on which no engine runs. */
  superblock(): Superblock {
    const { state } = moduleDirs(this.#ports.paths, this.#config().name);
    return readSuperblock(join(state, 'replica', 'super'));
  }

  /**
   * Why the directories should not be opened, while no engine has them; null: nothing is known. A
   * distant copy that had to become primary is not told apart from this copy by the register.
   */
  async look(force: boolean): Promise<string | null> {
    const why = await this.mirror.look(force);
    const config = this.#config();
    const distant = config.rfs?.distant ?? [];
    if (why !== null || force || distant.length === 0) return why;
    const others = await this.#ports.askOthers(config);
    const far = others.find(
      ({ id, replica }) => replica.role === 'prim' && distant.some(({ node }) => node === id),
    );
    return far === undefined ? null : `the distant copy on ${far.name} is primary`;
  }

  /** Carries an order out; its `engineDone` comes by `news`. */
  order(id: number, order: EngineOrder): void {
    this.#busy = true;
    const done = this.#before.then(() => this.#carryOut(order));
    void done.then(
      () => this.#done(id, ''),
      (error: unknown) => this.#done(id, error instanceof Error ? error.message : String(error)),
    );
  }

  /**
   * Finds the engine that a former agent left with a role, and tells all of it again; or that it is
   * gone, unless an order to it follows.
   */
  adopt(role: MirrorRole, follows: boolean): void {
    const found = follows ? this.mirror.attach(role) : this.mirror.find(role);
    this.#before = found.then((isThere) => {
      this.#role = role;
      if (isThere) this.#look();
      else if (!follows) this.#gone('it ended while no agent ran');
    });
  }

  /** Ends an engine of which nobody knows any more what it was to do. */
  async endLeft(): Promise<void> {
    if (await this.mirror.attach('second')) await this.mirror.close(closeLimitMs);
  }

  abandon(): void {
    this.#wait(null);
    this.mirror.abandon();
  }

  async #carryOut(order: EngineOrder): Promise<void> {
    switch (order.what) {
      case 'prim':
        await this.#open('prim', order.epoch, {
          order: order.force ? 'force' : null,
          heard: { primary: null, epoch: order.epoch },
        });
        // From here on it acknowledges by itself, under the epoch that allows it.
        return this.mirror.tell('alone', order.epoch);
      case 'alone':
      case 'joined':
        return this.mirror.tell(order.what, order.epoch);
      case 'second': {
        // The engine may have been told of an epoch that this agent's predecessor did not hear of.
        const epoch = Math.max(1, order.floor, this.superblock().epoch);
        return this.#open('second', epoch, {
          order: order.way === 'plain' ? null : order.way,
          heard: { primary: this.#peer, epoch },
        });
      }
      case 'close':
        return this.#close();
    }
  }

  async #open(role: MirrorRole, epoch: number, way: OpenWay): Promise<void> {
    this.#forget();
    await this.mirror.take(role, epoch, way);
    this.#role = role;
  }

  async #close(): Promise<void> {
    this.#forget();
    const reason = await this.mirror.close(closeLimitMs);
    this.#role = null;
    if (reason !== null) {
      this.#ports.record('peer', `replication: not closed in order: ${reason}`, { reason });
    }
  }

  /** Another role: what was told of the last one says nothing of it. */
  #forget(): void {
    this.#wait(null);
    this.#toldPeer = null;
    this.#toldPeerCopy = '';
    this.#toldCopy = null;
    this.#acked = undefined;
  }

  #done(id: number, why: string): void {
    this.#busy = false;
    this.#hooks.news({ kind: 'engineDone', id, ok: why === '', why });
    this.#look();
  }

  #gone(why: string): void {
    this.#forget();
    this.#hooks.news({ kind: 'engineGone', why });
  }

  /** Tells the core what it does not know of the newest status. */
  #look(): void {
    this.#hooks.changed();
    const { values } = this.mirror;
    if (this.#busy || this.#role === null) return;
    // A worker that is being replaced says nothing; what it was with is away meanwhile.
    const isThere = values['peer'] === 'connected';
    const isStuck = this.#isStuck();
    if (isThere && !isStuck) {
      this.#wait(null);
      this.#tellPeer('connected');
    } else if (this.#toldPeer !== 'left' && this.#toldPeer !== 'lost' && this.#apart === null) {
      const { rfs } = this.#config();
      this.#wait(() => this.#tellPeer('lost'), rfs?.sendTimeoutMs ?? 0);
    }
    if (this.#role === 'second') this.#tellCopy(copies[values['state'] ?? '']);
    else this.#lookPrimary(isThere);
    if (values['failed'] === '1' || values['own_failed'] === '1') this.#tellCopy('failed');
  }

  /**
   * A peer that connects, and acknowledges nothing of what is waited for, is as good as away: the way to it
   * may let only small frames through, or its disk stand still.
   */
  #isStuck(): boolean {
    const { durable, waiters } = this.mirror.values;
    const isStuck = this.#role === 'prim' && Number(waiters ?? 0) > 0 && durable === this.#acked;
    this.#acked = durable;
    return isStuck;
  }

  #lookPrimary(isThere: boolean): void {
    const { values } = this.mirror;
    const alone = values['alone'] !== '0';
    // A peer that was lost when its resync had just ended is waited for, and said nothing to that.
    const away = alone ? undefined : 'none';
    const copy = isThere ? peerCopies[values['peer_copy'] ?? ''] : away;
    if (copy === undefined) return;
    const epoch = Number(values['permit'] ?? 0);
    const text = `${copy} ${epoch} ${alone}`;
    if (text === this.#toldPeerCopy) return;
    this.#toldPeerCopy = text;
    this.#hooks.news({ kind: 'peerCopy', copy, epoch, alone });
  }

  #tellPeer(peer: 'connected' | 'lost' | 'left'): void {
    if (this.#toldPeer === peer || this.#role === null) return;
    this.#toldPeer = peer;
    // The core forgets what the engine said of a peer that is away.
    this.#toldPeerCopy = '';
    this.#hooks.news({ kind: 'enginePeer', peer });
  }

  #tellCopy(copy: CopyState | undefined): void {
    if (copy === undefined || copy === this.#toldCopy) return;
    this.#toldCopy = copy;
    this.#hooks.news({ kind: 'copy', copy });
  }

  #wait(then: (() => void) | null, ms = 0): void {
    if (this.#apart !== null) clearTimeout(this.#apart);
    this.#apart = null;
    if (then === null) return;
    this.#apart = setTimeout(() => {
      this.#apart = null;
      then();
    }, ms);
  }
}
