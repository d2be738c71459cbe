/** The mirrors of a node: made from the node's parts, and the orders that are for mirrors alone. */
import { HoldfastError } from '../errors.ts';
import type { ModuleConfig } from '../config/model.ts';
import { moduleDirs } from '../module/name.ts';
import type { ModuleStatus, SecondWay, VerifyStatus } from './face.ts';
import type { Hosted } from './hosted.ts';
import { HostedMirror } from './mirror.ts';
import { MirrorPorts, type MirrorPortsOptions } from './mirror-ports.ts';
import { MirrorRecord } from './mirror-state.ts';

export interface MirrorsOptions extends Omit<MirrorPortsOptions, 'number' | 'record'> {
  /** HF-AGENT-003, -004. */
  readonly hosted: (module: string) => Hosted;
  readonly record: (module: string, ...what: Parameters<MirrorPortsOptions['record']>) => void;
}

export class Mirrors {
  readonly #options: MirrorsOptions;

  constructor(options: MirrorsOptions) {
    this.#options = options;
  }

  /** `number` is that of the module on this server. */
  async host(config: ModuleConfig, number: number): Promise<HostedMirror> {
    const { paths, alert, record } = this.#options;
    const { name } = config;
    const epochs = await MirrorRecord.open(moduleDirs(paths, name).state, (error) =>
      alert(`module.${name}.epoch`, error !== null, 'critical', error?.line() ?? ''),
    );
    const ports = new MirrorPorts({
      ...this.#options,
      number,
      record: (...what) => record(name, ...what),
    });
    return new HostedMirror(config, epochs, ports);
  }

  async prim(module: string, alone: boolean, force: boolean): Promise<ModuleStatus> {
    const mirror = this.#mirror(module, 'prim');
    const order = `prim${alone ? ' alone' : ''}${force ? ' force' : ''}`;
    this.#options.record(module, 'command', order, { alone, force });
    await mirror.prim(alone, force);
    return mirror.status();
  }

  async second(module: string, way: SecondWay): Promise<ModuleStatus> {
    const mirror = this.#mirror(module, 'second');
    this.#options.record(module, 'command', way === 'plain' ? 'second' : `second ${way}`, { way });
    await mirror.second(way);
    return mirror.status();
  }

  async swap(module: string, sync: boolean): Promise<ModuleStatus> {
    const verb = sync ? 'swap' : 'swap nosync';
    throw new HoldfastError('HF-MIRROR-005', { module: this.#mirror(module, verb).name, verb });
  }

  async failover(module: string, on: boolean): Promise<ModuleStatus> {
    const verb = `failover ${on ? 'on' : 'off'}`;
    throw new HoldfastError('HF-MIRROR-005', { module: this.#mirror(module, verb).name, verb });
  }

  async verify(module: string): Promise<VerifyStatus> {
    const mirror = this.#mirror(module, 'verify');
    this.#options.record(module, 'command', 'verify', {});
    return mirror.verify();
  }

  #mirror(module: string, verb: string): HostedMirror {
    const hosted = this.#options.hosted(module);
    if (hosted instanceof HostedMirror) return hosted;
    throw new HoldfastError('HF-MIRROR-004', { module, verb });
  }
}
