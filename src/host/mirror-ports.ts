/** What a mirror needs of its node, and how its configuration becomes the engine's `open`. */
import { execFile } from 'node:child_process';
import { hkdfSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { ClusterConfig, ModuleConfig, SkipPattern } from '../config/model.ts';
import { HoldfastError } from '../errors.ts';
import { moduleDirs } from '../module/name.ts';
import type { Paths } from '../paths.ts';
import type { Alert, EventRecord, ModuleStatus, RemoteAgent, ReplicaStatus } from './face.ts';
import { distantOf, isDistant, type Places, placesOf, serversOf } from './mirror-places.ts';
import type { EngineAccess, EngineAnswer, EngineValues } from './replica.ts';

/** SafeKit's: port of the first module; each has four. */
const firstPort = 5600;
const portsEach = 4;
/** A peer that does not answer within this is one that cannot be asked. */
const askMs = 3000;

export interface MirrorPortsOptions {
  readonly paths: Paths;
  readonly node: string;
  readonly me: number;
  /** The number of the module on this server, from 1. */
  readonly number: number;
  /** 32 bytes that the cluster shares. */
  readonly secret: Uint8Array;
  readonly keyFiles: { readonly cert: string; readonly key: string; readonly caCert: string };
  readonly engine: EngineAccess;
  readonly nowMs: () => number;
  readonly cluster: () => ClusterConfig;
  readonly remote: (node: string) => Pick<RemoteAgent, 'module'>;
  readonly record: (
    kind: EventRecord['kind'],
    text: string,
    data: Readonly<Record<string, unknown>>,
  ) => void;
  readonly alert: (id: string, on: boolean, severity: Alert['severity'], message: string) => void;
}

/** Another server on which the module runs. */
export interface OtherServer {
  readonly id: number;
  readonly name: string;
  readonly state: ModuleStatus['state'];
  readonly replica: ReplicaStatus;
}

/** What the others say together. */
export interface Heard {
  /** Id of the one that is primary, or null. */
  readonly primary: number | null;
  /** The highest epoch that any of them knows of: it takes no data of an older one. */
  readonly epoch: number;
}

export class MirrorPorts {
  readonly paths: Paths;
  readonly node: string;
  readonly engine: EngineAccess;
  readonly nowMs: MirrorPortsOptions['nowMs'];
  readonly record: MirrorPortsOptions['record'];
  readonly alert: MirrorPortsOptions['alert'];
  readonly #options: MirrorPortsOptions;

  constructor(options: MirrorPortsOptions) {
    this.#options = options;
    this.paths = options.paths;
    this.node = options.node;
    this.engine = options.engine;
    this.nowMs = options.nowMs;
    this.record = options.record;
    this.alert = options.alert;
  }

  /** TCP port of replication, on all servers of the mirror. */
  port(config: ModuleConfig): number {
    return config.rfs?.port ?? firstPort + (this.#options.number - 1) * portsEach;
  }

  /**
   * Name of the server with which this one replicates in a role. A secondary may have several:
   * `seen` is the engine's number of the primary that was with it last, 0: none yet.
   */
  peerName(config: ModuleConfig, role: 'prim' | 'second', seen: number): string {
    if (role === 'second' && serversOf(config).includes(seen - 1)) return this.#nameOf(seen - 1);
    const names = this.pairNames(config);
    return (role === 'prim' ? names.slice(0, 1) : names).join(' or ') || '?';
  }

  /** Names of the mirror's two servers, but for this one. */
  pairNames({ rfs }: ModuleConfig): readonly string[] {
    const others = rfs?.nodes.filter((node) => node !== this.#options.me) ?? [];
    return others.map((node) => this.#nameOf(node));
  }

  /** Is the copy of this server a distant one? */
  isDistant(config: ModuleConfig): boolean {
    return isDistant(config, this.#options.me);
  }

  /** Names of the distant copies that a primary here has, in the engine's order. */
  distantNames(config: ModuleConfig): readonly string[] {
    return distantOf(config, this.#options.me).map((node) => this.#nameOf(node));
  }

  #nameOf(id: number): string {
    return this.#options.cluster().nodes.find((node) => node.id === id)?.name ?? '?';
  }

  /** Own address and those of the others; `primary` is known to be it, or null. HF-MIRROR-009. */
  places(config: ModuleConfig, primary: number | null): Places {
    const { cluster, me } = this.#options;
    const places = placesOf(config, cluster(), me, primary);
    if (places !== null) return places;
    const values = { node: this.node, lan: config.rfs?.lan ?? '', module: config.name };
    throw new HoldfastError('HF-MIRROR-009', values);
  }

  /** 128 bits, hex, that both servers give to the engine: it refuses one of another mirror. */
  set(module: string): string {
    const label = `holdfast v1 mirror ${module}`;
    return Buffer.from(hkdfSync('sha256', this.#options.secret, '', label, 16)).toString('hex');
  }

  get keyFiles(): MirrorPortsOptions['keyFiles'] {
    return this.#options.keyFiles;
  }

  get engineNode(): number {
    // The engine's 0 is nobody.
    return this.#options.me + 1;
  }

  /**
   * Refuses what another server is already (HF-MIRROR-007): one of all is primary, one of the
   * mirror's two its secondary; and a port that is another there (-014). One that cannot be asked
   * refuses nothing: the engines do not acknowledge without one another.
   */
  async checkPeer(config: ModuleConfig, role: 'prim' | 'second'): Promise<Heard> {
    this.places(config, null);
    const others = await this.askOthers(config);
    const primary = others.find(({ replica }) => replica.role === 'prim') ?? null;
    const isFar = (id: number): boolean => isDistant(config, id);
    // Both may follow a distant copy that had to become primary, and it has either of them.
    const isFed = this.isDistant(config) || (primary !== null && isFar(primary.id));
    const second = others.find(({ id, replica }) => replica.role === 'second' && !isFar(id));
    const clash = role === 'prim' ? primary : isFed ? undefined : second;
    if (clash) {
      const { state, name: node } = clash;
      throw new HoldfastError('HF-MIRROR-007', { module: config.name, state, node, verb: role });
    }
    const own = this.port(config);
    for (const { id, name, replica } of others) {
      if (replica.port === own) continue;
      const values = { module: config.name, own, other: replica.port, node: name };
      const error = new HoldfastError('HF-MIRROR-014', values);
      // Nothing waits for a distant copy, an order to the two servers least of all.
      if (!isFar(id)) throw error;
      this.record('refusal', error.line(), {});
    }
    const epoch = Math.max(0, ...others.map(({ replica }) => replica.epoch));
    return { primary: primary?.id ?? null, epoch };
  }

  /** The other servers on which the module runs, as far as they answer; all are asked at once. */
  async askOthers(config: ModuleConfig): Promise<readonly OtherServer[]> {
    const ids = serversOf(config).filter((id) => id !== this.#options.me);
    const answers = await Promise.all(
      ids.map(async (id): Promise<OtherServer[]> => {
        const name = this.#nameOf(id);
        const there = await this.#ask(name, config.name);
        const replica = there?.replica ?? null;
        return there === null || replica === null
          ? []
          : [{ id, name, state: there.state, replica }];
      }),
    );
    return answers.flat();
  }

  async #ask(node: string, module: string): Promise<ModuleStatus | null> {
    let timer: NodeJS.Timeout | null = null;
    const late = new Promise<null>((resolve) => {
      timer = setTimeout(() => resolve(null), askMs);
    });
    try {
      return await Promise.race([this.#options.remote(node).module(module), late]);
    } catch {
      return null;
    } finally {
      if (timer !== null) clearTimeout(timer);
    }
  }

  /** Takes away what an engine that died has left mounted, so that plain directories remain. */
  async unmountLeft(config: ModuleConfig): Promise<void> {
    const mounts = mountedNow();
    const boot = readText('/proc/sys/kernel/random/boot_id').trim();
    const state = engineFolder(this.paths, config.name);
    for (const [index, { dir }] of (config.rfs?.directories ?? []).entries()) {
      const top = mounts.findLast((mount) => mount.point === dir);
      if (top === undefined) continue;
      // The engine notes what it mounts, which on a secondary looks like any other mount.
      const noted = readText(join(state, `mounted${index}`)).trim() === `${boot} ${top.id}`;
      // A read-only one is its own only if it noted it; the kernel gives ids of mounts again.
      if (top.type !== 'fuse.holdfast' && !(noted && top.readOnly)) continue;
      await promisify(execFile)('umount', ['-l', '--', dir]).then(
        () => this.record('alert', `${dir} was left mounted and is detached now`, { dir }),
        (error: unknown) =>
          this.record('alert', `${dir} cannot be unmounted: ${String(error)}`, { dir }),
      );
    }
  }
}

/** Where the engine of a module keeps its own files. */
export function engineFolder(paths: Paths, module: string): string {
  return join(moduleDirs(paths, module).state, 'replica');
}

/** Empty where there is no such file. */
function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

interface Mounted {
  readonly id: string;
  readonly point: string;
  readonly type: string;
  readonly readOnly: boolean;
}

/** /proc/self/mountinfo (proc(5)), in the order of mounting. */
function mountedNow(): Mounted[] {
  return readText('/proc/self/mountinfo')
    .split('\n')
    .map((line) => {
      const [id = '', , , , point = '', options = ''] = line.split(' ');
      const type = / - (\S+) /.exec(line)?.[1] ?? '';
      return { id, point: unescaped(point), type, readOnly: /^ro(,|$)/.test(options) };
    });
}

function hostPort(addr: string, port: number): string {
  return isIPv6(addr) ? `[${addr}]:${port}` : `${addr}:${port}`;
}

/** Octal escapes of blanks and the like in mountinfo. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** A rule as the engine reads it (native/replica/skip.h). */
function skipRule({ kind, value, only }: SkipPattern): string {
  // In parentheses, since an expression that begins with "=" would be taken for a path.
  const rule = kind === 'path' ? `=${value}` : value.startsWith('=') ? `(${value})` : value;
  return only ? `!${rule}` : rule;
}

/** What an operator says of the copy that is opened: `open` has a key of that name. */
export type OpenOrder = 'force' | 'fullsync' | 'discard';

/** How a copy is opened: what was ordered, and what was heard of the others before. */
export interface OpenWay {
  readonly order: OpenOrder | null;
  readonly heard: Heard;
}

/** The values of `open` (docs/internals/replication.md, Control). */
export function openValues(
  ports: MirrorPorts,
  config: ModuleConfig,
  role: 'prim' | 'second',
  epoch: number,
  { order, heard }: OpenWay,
): EngineValues {
  const { rfs } = config;
  if (rfs === null) throw new Error(`mirror ${config.name} without <rfs>`);
  const { listen, peer, distant } = ports.places(config, heard.primary);
  const files = ports.keyFiles;
  const port = ports.port(config);
  const [first] = rfs.directories;
  return [
    ['role', role],
    ['set', ports.set(config.name)],
    ['node', String(ports.engineNode)],
    ['epoch', String(epoch)],
    ['state', engineFolder(ports.paths, config.name)],
    ...rfs.directories.map(({ dir }) => ['dir', dir] as const),
    ['peer', hostPort(peer, port)],
    ['listen', hostPort(listen, port)],
    ...(role === 'prim' ? distant : []).map((addr) => ['distant', hostPort(addr, port)] as const),
    ['cert', files.cert],
    ['key', files.key],
    ['ca', files.caCert],
    ['async', rfs.async],
    ['ack', rfs.ack],
    ['ring', String(rfs.ringBytes)],
    ['journal', String(rfs.journalBytes)],
    ['sendtimeout', String(rfs.sendTimeoutMs)],
    ['locktimeout', String(rfs.lockTimeoutMs)],
    ['resyncrate', String(rfs.resyncBytesPerS)],
    ...(order === null ? [] : [[order, '1'] as const]),
    ...(first?.skip ?? []).map((pattern) => ['skip', skipRule(pattern)] as const),
  ];
}

export interface EngineFigures {
  readonly epoch: number;
  readonly alone: boolean;
}

/** What the agent acts on of an engine's status. */
export function engineFigures(status: EngineAnswer): EngineFigures {
  return {
    epoch: Number(status['epoch'] ?? 0),
    alone: status['alone'] === '1',
  };
}

/** What cannot change while the engine runs; ids of nodes may, as cluster.xml does. */
export function fixedOf({ rfs }: ModuleConfig): unknown {
  return {
    ...rfs,
    nodes: [],
    distant: rfs?.distant.map(({ name, lan }) => ({ name, lan })),
    directories: rfs?.directories.map((directory) => ({ ...directory, line: 0 })),
  };
}
