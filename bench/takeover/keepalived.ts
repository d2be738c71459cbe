/** keepalived in the bench: the two servers of the farm bench, which fail in more ways here. */
import type { Host } from '../../src/lab/host.ts';
import type { Lab } from '../../src/lab/lab.ts';
import { KeepalivedRig } from '../failover/keepalived.ts';
import { port } from '../failover/rig.ts';
import type { Trigger } from './figures.ts';
import type { Contestant } from './rig.ts';

export class KeepalivedPair implements Contestant {
  readonly port = port;
  readonly #rig: KeepalivedRig;

  private constructor(rig: KeepalivedRig) {
    this.#rig = rig;
  }

  static async up(advertMs: number): Promise<KeepalivedPair> {
    return new KeepalivedPair(await KeepalivedRig.up(advertMs));
  }

  get lab(): Lab {
    return this.#rig.lab;
  }

  get vip(): string {
    return this.#rig.vip;
  }

  /** Each has a state from its start on, and a backup is always able to take over. */
  async settled(): Promise<void> {
    this.#rig.victim();
  }

  /** swap: it ends in order, and says so to the other one (a priority of 0). */
  async fail(host: Host, trigger: Trigger): Promise<void> {
    if (trigger === 'power') return host.power();
    const count = host.kill(/^keepalived /, trigger === 'swap' ? 'SIGTERM' : 'SIGKILL');
    if (count === 0) throw new Error(`keepalived does not run on ${host.name}`);
  }

  async stages(): Promise<null> {
    return null;
  }

  /** Off and on in any case: a killed one has left its address on the device. */
  async restore(host: Host, trigger: Trigger): Promise<void> {
    if (trigger !== 'power') await host.power();
    await this.#rig.restore(host);
  }
}
