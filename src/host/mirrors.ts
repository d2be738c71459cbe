/** The mirrors of a node: made from the node's parts, and the orders that are for mirrors alone. */
import type { Register } from '../arbiter/register.ts';
import { HoldfastError } from '../errors.ts';
import { hasArbiter } from '../config/index.ts';
import type { ClusterConfig, ModuleConfig } from '../config/model.ts';
import { moduleDirs } from '../module/name.ts';
import type { ModuleStatus, SecondWay, VerifyStatus } from './face.ts';
import type { Hosted } from './hosted.ts';
import { HostedMirror } from './mirror.ts';
import { MirrorPorts, type MirrorPortsOptions } from './mirror-ports.ts';
import { MirrorRecord } from './mirror-state.ts';
import { HostedPair } from './pair.ts';
import { peerOf } from './pair-ports.ts';
import { isDecided, Pairs, type PairsOptions } from './pairs.ts';

export interface MirrorsOptions
  extends Omit<MirrorPortsOptions, 'number' | 'record'>,
    Omit<PairsOptions, keyof MirrorPortsOptions> {
  /** HF-AGENT-003, -004. */
  readonly hosted: (module: string) => Hosted;
  readonly record: (module: string, ...what: Parameters<MirrorPortsOptions['record']>) => void;
  /** It is to run, also after a restart of the server. */
  readonly want: (module: string) => Promise<void>;
}

export class Mirrors {
  readonly #options: MirrorsOptions;
  readonly #pairs: Pairs;

  constructor(options: MirrorsOptions) {
    this.#options = options;
    this.#pairs = new Pairs(options);
  }

  /** @see Pairs.register */
  register(): Register | null {
    return this.#pairs.register();
  }

  /** `number` is that of the module on this server. */
  async host(config: ModuleConfig, number: number): Promise<HostedMirror | HostedPair> {
    const { paths, alert, record, cluster, me } = this.#options;
    const { name } = config;
    const epochs = await MirrorRecord.open(moduleDirs(paths, name).state, (error) =>
      alert(`module.${name}.epoch`, error !== null, 'critical', error?.line() ?? ''),
    );
    const ports = new MirrorPorts({
      ...this.#options,
      number,
      record: (...what) => record(name, ...what),
    });
    return isDecided(config, cluster(), me)
      ? this.#pairs.host(config, ports, epochs)
      : new HostedMirror(config, epochs, ports);
  }

  /** Is what hosts a mirror another than its configuration, or that of the cluster, asks for now? */
  isOther(hosted: Hosted, config: ModuleConfig): boolean {
    const { cluster, me } = this.#options;
    if (!isDecided(config, cluster(), me)) return hosted instanceof HostedPair;
    return !(hosted instanceof HostedPair) || hosted.peer !== peerOf(config, me);
  }

  /**
   * A mirror decides for itself, or is run by hand, from its start to its stop: HF-AGENT-006. Another
   * arbiter in the place of one may come while it runs: its register is empty, and so it is made anew,
   * under a higher incarnation, by a primary, once its peer has promised to go by no lower one.
   */
  checkArbiter(hosted: Hosted, next: ClusterConfig): void {
    if (hasArbiter(next) === hasArbiter(this.#options.cluster())) return;
    if (hosted.stopped || hosted.config.service.mode !== 'mirror') return;
    const what = '<arbiter> of cluster.xml';
    throw new HoldfastError('HF-AGENT-006', { module: hosted.name, what });
  }

  async prim(module: string, alone: boolean, force: boolean): Promise<ModuleStatus> {
    const mirror = this.#mirror(module, 'prim');
    const order = `prim${alone ? ' alone' : ''}${force ? ' force' : ''}`;
    this.#options.record(module, 'command', order, { alone, force });
    if (mirror instanceof HostedPair) {
      await this.#options.want(module);
      await mirror.prim(force);
    } else await mirror.prim(alone, force);
    return mirror.status();
  }

  async second(module: string, way: SecondWay): Promise<ModuleStatus> {
    const mirror = this.#mirror(module, 'second');
    this.#options.record(module, 'command', way === 'plain' ? 'second' : `second ${way}`, { way });
    if (mirror instanceof HostedPair) await this.#options.want(module);
    await mirror.second(way);
    return mirror.status();
  }

  async swap(module: string, sync: boolean): Promise<ModuleStatus> {
    const verb = sync ? 'swap' : 'swap nosync';
    const pair = this.#pair(module, verb);
    this.#options.record(module, 'command', verb, { sync });
    await pair.swap(sync);
    return pair.status();
  }

  async failover(module: string, on: boolean): Promise<ModuleStatus> {
    const verb = `failover ${on ? 'on' : 'off'}`;
    const pair = this.#pair(module, verb);
    this.#options.record(module, 'command', verb, { on });
    await pair.failover(on);
    return pair.status();
  }

  async setResource(
    module: string,
    resource: string,
    state: 'up' | 'down',
    reason: string,
  ): Promise<ModuleStatus> {
    const pair = this.#pair(module, 'set');
    pair.setResource(resource, state, reason);
    return pair.status();
  }

  async verify(module: string): Promise<VerifyStatus> {
    const mirror = this.#mirror(module, 'verify');
    this.#options.record(module, 'command', 'verify', {});
    return mirror.verify();
  }

  /** HF-MIRROR-005 where it is run by hand. */
  #pair(module: string, verb: string): HostedPair {
    const mirror = this.#mirror(module, verb);
    if (mirror instanceof HostedPair) return mirror;
    throw new HoldfastError('HF-MIRROR-005', { module, verb });
  }

  #mirror(module: string, verb: string): HostedMirror | HostedPair {
    const hosted = this.#options.hosted(module);
    if (hosted instanceof HostedMirror || hosted instanceof HostedPair) return hosted;
    throw new HoldfastError('HF-MIRROR-004', { module, verb });
  }
}
