import { join } from 'node:path';

/** Where one node keeps its files. Every path of the product comes from here. */
export interface Paths {
  /** Configuration, keys and installed modules; survives everything. */
  readonly etc: string;
  readonly clusterXml: string;
  readonly pki: string;
  readonly modules: string;
  /** What the node must remember across its own death: journal, module states, active configurations. */
  readonly state: string;
  /** Sockets and shared memory; gone after a reboot. */
  readonly run: string;
  readonly agentSocket: string;
  readonly log: string;
  /** On a machine that is a witness: keys and records of the clusters it serves. */
  readonly witness: string;
  /** bpffs folder that holds the pinned filter. */
  readonly bpf: string;
}

/**
 * The paths below a root folder. The root is `/` on a server; tests without a mount namespace of
 * their own pass a temporary folder (environment variable HOLDFAST_ROOT).
 */
export function pathsBelow(root: string): Paths {
  const etc = join(root, 'etc/holdfast');
  const run = join(root, 'run/holdfast');
  return {
    etc,
    clusterXml: join(etc, 'cluster.xml'),
    pki: join(etc, 'pki'),
    modules: join(etc, 'modules'),
    state: join(root, 'var/lib/holdfast'),
    run,
    agentSocket: join(run, 'agent.sock'),
    log: join(root, 'var/log/holdfast'),
    witness: join(root, 'var/lib/holdfast-witness'),
    bpf: '/sys/fs/bpf/holdfast',
  };
}

/** The paths of this process. */
export function paths(): Paths {
  return pathsBelow(process.env['HOLDFAST_ROOT'] ?? '/');
}
