/** Two hosts with a replicated directory, one of which goes away and comes back. */
import { execFile } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Backing } from '../../src/lab/backing.ts';
import type { Host } from '../../src/lab/host.ts';
import type { Lab } from '../../src/lab/lab.ts';
import { ReplicaPair } from '../../src/lab/replica.ts';
import { collect, repoRoot, spawnIn } from '../../src/lab/tool.ts';
import { type ReplicaAnswer, ReplicaClient } from '../../src/native/replica.ts';
import { type Operation, type Pass, wireBytes } from './figures.ts';
import { nowMs, script } from './script.ts';
import { carryOut } from './task.ts';
import type { Changed, Task, Tree } from './writer.ts';

/** Small, so that what changes while the peer is away has left it when the peer comes back. */
const ringBytes = 16 << 20;
const applicationBytes = 16 << 20;
const taskMs = 600_000;
const backMs = 600_000;

interface Seen {
  readonly atMs: number;
  readonly values: ReplicaAnswer;
}

/** A way back, with its moments on the shared clock, ms. */
export interface Return extends Pass {
  /** The peer's processes begin; the resync begins; in sync. */
  readonly peerMs: number;
  readonly fromMs: number;
  readonly toMs: number;
}

export class Rig {
  readonly lab: Lab;
  readonly pair: ReplicaPair;
  readonly tree: Tree;
  readonly #seen: Seen[] = [];
  readonly #watch: ReplicaClient[] = [];
  #refused: ReplicaAnswer | null = null;

  private constructor(lab: Lab, pair: ReplicaPair, tree: Tree) {
    this.lab = lab;
    this.pair = pair;
    this.tree = tree;
  }

  /** Resolves when the tree is on both hosts. */
  static async make(lab: Lab, backing: Backing, files: number): Promise<Rig> {
    const pair = await ReplicaPair.start(lab, {
      name: 'resync',
      dir: `${backing.base}/data`,
      stateDir: `${backing.base}/state`,
      ringBytes,
    });
    const tree = { dir: `${pair.dir}/tree`, files, fileBytes: 1 << 20 };
    const rig = new Rig(lab, pair, tree);
    await carryOut(rig.host, { task: 'fill', ...tree });
    await pair.settled();
    await rig.watch();
    return rig;
  }

  get host(): Host {
    return this.lab.host('s1');
  }

  private async watch(): Promise<void> {
    const client = await ReplicaClient.connect(this.host.path('/run/replica-resync.sock'), {
      onEvent: (name, values) => {
        if (name === 'resync') this.#seen.push({ atMs: nowMs(), values });
        if (name === 'peer' && values['state'] === 'refused') this.#refused = values;
      },
    });
    this.#watch.push(client);
  }

  /** The other side ends in order, and this one goes on without it. */
  async part(): Promise<void> {
    await this.pair.stopSecond();
    await this.pair.alone();
  }

  /** Changes a part of the tree, until the ring holds none of the first of it. */
  change(part: number, seed: number): Promise<Changed> {
    const atLeast = 2 * ringBytes;
    return carryOut(this.host, { task: 'change', ...this.tree, part, seed, atLeast });
  }

  async #wire(): Promise<number> {
    const { stdout } = await this.host.exec(['cat', '/proc/net/dev']);
    return wireBytes(stdout, this.host.device());
  }

  /** The other side comes back. Resolves when it is in sync. */
  async back(changedBytes: number): Promise<Return> {
    this.#seen.length = 0;
    this.#refused = null;
    const before = await this.#wire();
    const startMs = nowMs();
    await this.pair.startSecond();
    const opened = nowMs();
    const of = (state: string) => this.#seen.findLast(({ values }) => values['state'] === state);
    for (;;) {
      const { all } = await this.pair.prim.status();
      // The primary waits for its peer again before the peer has said that it is whole.
      const isDone = of('started') === undefined || of('done') !== undefined;
      if (all['insync'] === '1' && isDone) break;
      if (this.#refused !== null) throw new Error(`refused: ${JSON.stringify(this.#refused)}`);
      if (nowMs() > startMs + backMs) throw new Error(`not in sync: ${JSON.stringify(all)}`);
      await delay(5);
    }
    const begun = of('started');
    const done = of('done');
    const fromMs = begun?.atMs ?? opened;
    const toMs = done?.atMs ?? nowMs();
    return {
      changedBytes,
      kind: begun?.values['kind'] ?? 'catch_up',
      wireBytes: (await this.#wire()) - before,
      readBytes: Number(done?.values['read'] ?? 0),
      backMs: toMs - startMs,
      resyncMs: toMs - fromMs,
      peerMs: startMs,
      fromMs,
      toMs,
    };
  }

  /** The application runs for as long as `during` does, and for `aroundMs` before and behind it. */
  async underLoad<T>(
    aroundMs: number,
    during: () => Promise<T>,
  ): Promise<{ readonly result: T; readonly operations: readonly Operation[] }> {
    const file = `${this.pair.dir}/application`;
    const stop = '/run/resync-stop';
    rmSync(this.host.path(stop), { force: true });
    const { child } = spawnIn(this.host.process, script('writer'));
    const task: Task = { task: 'application', file, bytes: applicationBytes, stop };
    const output = collect(child, JSON.stringify(task), taskMs);
    try {
      await delay(aroundMs);
      const result = await during();
      await delay(aroundMs);
      writeFileSync(this.host.path(stop), '');
      const { code, stdout, stderr } = await output;
      if (code !== 0) throw new Error(`the application failed: ${stderr}`);
      return { result, operations: JSON.parse(stdout) as Operation[] };
    } finally {
      writeFileSync(this.host.path(stop), '');
      await output;
    }
  }

  /** Rejects unless both hosts have the same, in content and attributes. */
  async compare(): Promise<void> {
    await this.pair.settled();
    const [first = '', second = ''] = this.lab.hosts.map((host) => host.path(this.pair.dir));
    const tool = `${repoRoot}/build/Release/replica_tool`;
    await promisify(execFile)(tool, ['compare', first, second]);
  }

  async stop(): Promise<void> {
    for (const client of this.#watch) client.close();
    await this.pair.stop();
  }
}
