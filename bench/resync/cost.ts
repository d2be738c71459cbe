/**
 * What it costs to note what changes: one 4 KiB write in each file of a tree, on the mount without a
 * peer, with one, and alone. The first pass after the role began finds no mark on disk for any of
 * the files; the later ones find all of them.
 */
import type { Backing } from '../../src/lab/backing.ts';
import type { Lab } from '../../src/lab/lab.ts';
import { ReplicaProcess } from '../../src/lab/replica.ts';
import type { Rig } from './rig.ts';
import { carryOut } from './task.ts';
import type { Touched, Tree } from './writer.ts';

export const sideTitles = ['mount alone', 'connected', 'alone'] as const;
export type SideTitle = (typeof sideTitles)[number];

/** Waits of one side, us. */
export interface Cost {
  readonly side: SideTitle;
  /** Synced, the first write of each file since the role began. */
  readonly first: readonly number[];
  /** Synced, further ones. */
  readonly further: readonly number[];
  readonly buffered: readonly number[];
  /** Writes of marks to disk, in the first pass and in all others. */
  readonly firstMarks: number;
  readonly furtherMarks: number;
}

const furtherPasses = 3;

export class CostRig {
  readonly #rig: Rig;
  readonly #mount: ReplicaProcess;
  readonly #open: Readonly<Record<string, string>>;
  readonly #tree: Tree;

  private constructor(rig: Rig, mount: ReplicaProcess, open: Record<string, string>, tree: Tree) {
    this.#rig = rig;
    this.#mount = mount;
    this.#open = open;
    this.#tree = tree;
  }

  static async make(lab: Lab, backing: Backing, rig: Rig): Promise<CostRig> {
    const host = lab.host('s1');
    const dir = `${backing.base}/mounted`;
    const state = `${backing.base}/state-mounted`;
    await host.exec(['mkdir', '-p', dir, state]);
    const mount = await ReplicaProcess.start(host, 'mounted');
    const open = { role: 'mount', state, dir };
    await mount.client.request('open', open);
    const tree = { ...rig.tree, dir: `${dir}/tree` };
    await carryOut(host, { task: 'fill', ...tree });
    return new CostRig(rig, mount, open, tree);
  }

  /** Each side once; the pair is in sync before and afterwards. */
  async round(): Promise<readonly Cost[]> {
    const rig = this.#rig;
    await this.#mount.client.request('close', {});
    await this.#mount.client.request('open', this.#open);
    const costs = [await this.#measure('mount alone', this.#tree, () => Promise.resolve(0))];
    const marks = async () => Number((await rig.pair.prim.status()).all['mark_writes'] ?? 0);
    await rig.pair.reopenPrim();
    await rig.pair.settled();
    costs.push(await this.#measure('connected', rig.tree, marks));
    await rig.part();
    await rig.pair.reopenPrim();
    if (!(await rig.pair.prim.status()).alone) throw new Error('the primary waits for its peer');
    costs.push(await this.#measure('alone', rig.tree, marks));
    await rig.back(0);
    return costs;
  }

  async #measure(side: SideTitle, tree: Tree, marks: () => Promise<number>): Promise<Cost> {
    const { host } = this.#rig;
    const touch = (passes: number, sync: boolean) =>
      carryOut<Touched>(host, { task: 'touch', ...tree, passes, sync });
    const before = await marks();
    const first = (await touch(1, true)).flat();
    const between = await marks();
    const further = (await touch(furtherPasses, true)).flat();
    const buffered = (await touch(furtherPasses, false)).flat();
    const firstMarks = between - before;
    return {
      side,
      first,
      further,
      buffered,
      firstMarks,
      furtherMarks: (await marks()) - between,
    };
  }

  stop(): Promise<void> {
    return this.#mount.stop();
  }
}
