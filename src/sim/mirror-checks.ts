/**
 * What must hold in a simulated mirror after every event:
 * I1 who may become primary by the arbiter's record, and who is it by the newest one, has every
 *    acknowledged change, durably;
 * I2 two servers never acknowledge: what is acknowledged is one log, and each change of it is in the
 *    log of whoever acknowledges;
 * I3 two servers never answer for the address.
 * And when all faults are over: one primary, one secondary in sync, without an operator (I4).
 */
import { shownOf } from '../core/mirror-shown.ts';
import { Violation } from './kit.ts';
import type { Entry } from './mirror-copy.ts';
import type { MirrorNode } from './mirror-node.ts';
import type { MirrorWorld } from './mirror-world.ts';

export class MirrorChecks {
  readonly #world: MirrorWorld;
  /** Acknowledged changes by LSN - 1; others of the log were never acknowledged. */
  readonly #acked: (Entry | undefined)[] = [];
  acknowledgedCount = 0;
  /** Longest time without an answer for the address, while it was asked for. */
  silentMs = 0;
  #lastAnswerMs = Number.POSITIVE_INFINITY;

  constructor(world: MirrorWorld) {
    this.#world = world;
  }

  /** I3. */
  answers(): void {
    const [a, b] = this.#world.nodes;
    const one = a.answers;
    const other = b.answers;
    if (one && other) throw new Violation('two answers', 'both servers answer for the address');
    if (!one && !other) return;
    const { nowMs } = this.#world;
    this.silentMs = Math.max(this.silentMs, nowMs - this.#lastAnswerMs);
    this.#lastAnswerMs = nowMs;
  }

  acknowledged(node: MirrorNode, lsn: number, entry: Entry): void {
    const known = this.#acked[lsn - 1];
    if (known !== undefined && known.id !== entry.id) {
      const text = `change ${lsn} is ${known.id}, n${node.id} acknowledges ${entry.id}`;
      throw new Violation('two acknowledge', text);
    }
    this.#acked[lsn - 1] = entry;
    this.acknowledgedCount++;
    this.#world.mix(lsn);
    for (const other of this.#world.nodes)
      if (this.#needs(other)) this.#checkOne(other, lsn, entry);
  }

  recordChanged(): void {
    for (const node of this.#world.nodes) this.copyChanged(node);
  }

  /** I1 and I2 for everything that was ever acknowledged. */
  copyChanged(node: MirrorNode): void {
    if (!this.#needs(node)) return;
    for (const [i, entry] of this.#acked.entries()) {
      if (entry !== undefined) this.#checkOne(node, i + 1, entry);
    }
  }

  /** Does the record, or its own role, make it stand for what was acknowledged? */
  #needs(node: MirrorNode): boolean {
    if (!node.config.hasData) return false;
    if (node.copy.state === 'failed' || node.lostDisk) return false;
    const { newest } = this.#world;
    if (newest === null) return true;
    return newest.inSync.includes(node.id) || newest.primary === node.id;
  }

  /** Of those that the record names, no disk is left. */
  isGone(): boolean {
    const { newest } = this.#world;
    if (newest === null) return false;
    return newest.inSync.every((id) => {
      const node = this.#world.node(id);
      return node.copy.state === 'failed' || node.lostDisk;
    });
  }

  #checkOne(node: MirrorNode, lsn: number, entry: Entry): void {
    const there = node.copy.log[lsn - 1];
    const isThere = there !== undefined && there.id === entry.id;
    if (isThere && lsn <= node.copy.durable) return;
    const { newest } = this.#world;
    const what = isThere ? 'is not durable' : 'is missing';
    const as = `in sync ${newest?.inSync.join()}, primary ${newest?.primary}`;
    throw new Violation(
      'lost',
      `acknowledged change ${lsn} (${entry.id}) ${what} at n${node.id}; epoch ${newest?.epoch}, ${as}`,
    );
  }

  /** All that liveness asks for, or the first thing that is missing. */
  unsettled(): string | null {
    const { nodes, register } = this.#world;
    const shown = nodes.map((node) => {
      const { state, readiness } = shownOf(node.state);
      return `${state}(${readiness})`;
    });
    const where = nodes.map(({ engine, copy }) => {
      return `${engine.role} ${engine.session} ${engine.run} ${copy.state}`;
    });
    const primary = nodes.find((_node, i) => shown[i] === 'PRIM(Ready)');
    if (primary === undefined || !shown.includes('SECOND(Ready)'))
      return [...shown, ...where].join(', ');
    if (!primary.answers) return `n${primary.id} is primary and does not answer`;
    if (register.record?.inSync.length !== 2) return 'the record has not both in sync';
    if (primary.config.hasData && primary.engine.session === 0)
      return 'the engines are not connected';
    return null;
  }
}
