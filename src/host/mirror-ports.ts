/** What a mirror needs of its node, and how its configuration becomes the engine's `open`. */
import { execFile } from 'node:child_process';
import { hkdfSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { ClusterConfig, LanNode, ModuleConfig, SkipPattern } from '../config/model.ts';
import { HoldfastError } from '../errors.ts';
import { moduleDirs } from '../module/name.ts';
import type { Paths } from '../paths.ts';
import type { Alert, EventRecord, ModuleStatus, RemoteAgent } from './face.ts';
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

  /** TCP port of replication, on both servers. */
  port(config: ModuleConfig): number {
    return config.rfs?.port ?? firstPort + (this.#options.number - 1) * portsEach;
  }

  /** Name of the other server; a question mark where this one is not of the two. */
  peerName(config: ModuleConfig): string {
    const id = config.rfs?.nodes.find((node) => node !== this.#options.me);
    return this.#options.cluster().nodes.find((node) => node.id === id)?.name ?? '?';
  }

  /** Own place and the peer's on the network of replication. HF-MIRROR-009. */
  places(config: ModuleConfig): { readonly own: LanNode; readonly peer: LanNode } {
    const { me } = this.#options;
    const name = config.rfs?.lan ?? '';
    const lan = this.#options.cluster().lans.find((one) => one.name === name);
    const own = lan?.nodes.find((at) => at.node === me);
    const peer = lan?.nodes.find((at) => at.node !== me);
    if (own !== undefined && peer !== undefined) return { own, peer };
    const values = { node: this.node, lan: name, module: config.name };
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
   * Refuses what the peer is already (HF-MIRROR-007) and a port that is another there (-014). A peer
   * that cannot be asked refuses nothing: the engines do not acknowledge without one another.
   */
  async checkPeer(config: ModuleConfig, role: 'prim' | 'second'): Promise<void> {
    this.places(config);
    const node = this.peerName(config);
    const there = await this.#ask(node, config.name);
    const replica = there?.replica ?? null;
    if (there === null || replica === null) return;
    const { state } = there;
    if (replica.role === role) {
      throw new HoldfastError('HF-MIRROR-007', { module: config.name, state, node, verb: role });
    }
    const own = this.port(config);
    if (replica.port === own) return;
    const values = { module: config.name, own, other: replica.port, node };
    throw new HoldfastError('HF-MIRROR-014', values);
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
      if (!noted && top.type !== 'fuse.holdfast') continue;
      await promisify(execFile)('umount', ['-l', '--', dir]).then(
        () => this.record('alert', `${dir} was left mounted and is detached now`, { dir }),
        (error: unknown) =>
          this.record('alert', `${dir} cannot be unmounted: ${String(error)}`, { dir }),
      );
    }
  }
}

/** Where the engine of a module keeps its own files. */
function engineFolder(paths: Paths, module: string): string {
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

/** /proc/self/mountinfo (proc(5)), in the order of mounting. */
function mountedNow(): { readonly id: string; readonly point: string; readonly type: string }[] {
  return readText('/proc/self/mountinfo')
    .split('\n')
    .map((line) => {
      const [id = '', , , , point = ''] = line.split(' ');
      return { id, point: unescaped(point), type: / - (\S+) /.exec(line)?.[1] ?? '' };
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

/** The values of `open` (docs/internals/replication.md, Control). */
export function openValues(
  ports: MirrorPorts,
  config: ModuleConfig,
  role: 'prim' | 'second',
  epoch: number,
  order: OpenOrder | null,
): EngineValues {
  const { rfs } = config;
  if (rfs === null) throw new Error(`mirror ${config.name} without <rfs>`);
  const { own, peer } = ports.places(config);
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
    ['peer', hostPort(peer.addr, port)],
    ['listen', hostPort(own.laddr, port)],
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
