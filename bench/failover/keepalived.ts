/** keepalived in the bench: two servers, one virtual IP that VRRPv3 gives to one of them. */
import { execFileSync } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Host, HostProcess } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { firstLine, toolPath, until } from '../../src/lab/tool.ts';
import { port, type Rig } from './rig.ts';

const configPath = '/run/keepalived.conf';

/** High, so that skew_time (RFC 5798, section 6.1) adds next to nothing to its detection. */
const priorities: Readonly<Record<string, number>> = { s1: 254, s2: 253 };

/** keepalived says BACKUP or MASTER well within this, on a busy machine. */
const waitMs = 20_000;

export class KeepalivedRig implements Rig {
  readonly lab: Lab;
  readonly vip: string;
  readonly #advertMs: number;
  /** What each keepalived said last about itself. */
  readonly #states = new Map<string, 'MASTER' | 'BACKUP'>();

  private constructor(lab: Lab, advertMs: number) {
    this.lab = lab;
    this.vip = lab.vip();
    this.#advertMs = advertMs;
  }

  static async up(advertMs: number): Promise<KeepalivedRig> {
    const lab = await Lab.up({ hosts: Object.keys(priorities), clientAddresses: 100 });
    try {
      const rig = new KeepalivedRig(lab, advertMs);
      for (const host of lab.hosts) await rig.#start(host);
      await rig.#wait('one server to be MASTER', () =>
        [...rig.#states.values()].includes('MASTER'),
      );
      return rig;
    } catch (error) {
      await lab.down();
      throw error;
    }
  }

  /** Always the master: pulling the other one would not be seen by any client. */
  victim(): Host {
    const master = this.lab.hosts.find((host) => this.#states.get(host.name) === 'MASTER');
    if (master === undefined) throw new Error('keepalived: no server is MASTER');
    return master;
  }

  async restore(host: Host): Promise<void> {
    await host.boot();
    await this.#start(host);
  }

  /** Starts the server and keepalived; resolves when it has a state (BACKUP, as configured). */
  async #start(host: Host): Promise<void> {
    const serve = [toolPath(), 'serve', `name=${host.name}`, 'tcp=0', `udp=${port}`];
    const server = await host.spawn(serve);
    if ((await firstLine(server.child.stdout)) !== 'ready') {
      throw new Error(`the server of ${host.name} did not start`);
    }
    this.#states.delete(host.name);
    host.writeFile(configPath, this.#config(host));
    const argv = ['keepalived', '--dont-fork', '--log-console', '--vrrp', '-f', configPath];
    const daemon = await host.spawn([...argv, '-p', '/run/keepalived.pid', '-r', '/run/vrrp.pid']);
    for (const stream of [daemon.child.stdout, daemon.child.stderr]) this.#listen(host, stream);
    await this.#wait(`${host.name} to have a state`, () => this.#states.has(host.name), daemon);
  }

  #listen(host: Host, stream: Readable | null): void {
    if (stream === null) return;
    createInterface({ input: stream }).on('line', (line) => {
      const state = /Entering (MASTER|BACKUP) STATE/.exec(line)?.[1];
      if (state === 'MASTER' || state === 'BACKUP') this.#states.set(host.name, state);
    });
  }

  async #wait(what: string, isDone: () => boolean, daemon?: HostProcess): Promise<void> {
    let ended = false;
    void daemon?.ended.then(() => (ended = true));
    await until(() => isDone() || ended, waitMs);
    if (!isDone()) throw new Error(`keepalived: waited in vain for ${what}`);
  }

  /** As keepalived ships but for the interval. nopreempt: each pull finds the survivor in charge. */
  #config(host: Host): string {
    return `global_defs {
  vrrp_version 3
}
vrrp_instance probe {
  state BACKUP
  nopreempt
  interface ${host.device()}
  virtual_router_id 51
  priority ${priorities[host.name] ?? 100}
  advert_int ${this.#advertMs / 1000}
  virtual_ipaddress {
    ${this.vip}/${this.lab.vipPrefix[4]} dev ${host.device()}
  }
}
`;
  }
}

/** "keepalived 2.2.7"; throws where it is not installed. */
export function keepalivedVersion(): string {
  // It prints its version on stderr.
  const text = execFileSync('sh', ['-c', 'keepalived --version 2>&1']).toString();
  return `keepalived ${/v(\d[\d.]*)/.exec(text)?.[1] ?? 'of unknown version'}`;
}
