/**
 * The register of an arbiter: one small record for each mirror, changed by compare-and-swap of the
 * whole record only, durable before the answer. Several kinds behind one interface; what all of them
 * promise is tested by one suite (test/arbiter/contract.ts).
 */
import type { ArbiterConfig } from '../config/index.ts';
import type { ArbiterAnswer, ArbiterRecord } from '../core/mirror-types.ts';
import { DirectoryRegister } from './directory.ts';
import { EtcdRegister } from './etcd.ts';
import { FenceRegister } from './fence.ts';
import { staticRegister } from './static.ts';
import { WitnessRegister } from './witness.ts';

export type { ArbiterAnswer, ArbiterRecord } from '../core/mirror-types.ts';
export type { RegisterQuestion } from './record.ts';

export interface Register {
  /**
   * Never rejects; answered within the time limit that the register was opened with. `record`, or
   * `unreachable`: nothing is learned.
   */
  read(module: string): Promise<ArbiterAnswer>;
  /**
   * Never rejects; answered within the time limit. `won`: the register holds `to`, durably (also
   * where it held it before: the question was heard twice). `lost`: it holds something else than
   * `from`. `unknown`: it may have been done, or be done later. `unreachable`: it was not done and
   * never will be. `to` must be later than `from` (incarnation, epoch).
   */
  swap(module: string, from: ArbiterRecord | null, to: ArbiterRecord): Promise<ArbiterAnswer>;
  /** For status: one line, e.g. "witness w1 (10.0.0.9:9530)". */
  readonly text: string;
  /** Where a swap may take longer than the time limit: until the other server is off. */
  readonly limitMs?: number;
  /** Where the other server asks this one for more than a record. Rejects what is no question. */
  serve?(message: unknown): Promise<unknown>;
  /** Questions that are not answered are answered as if the time limit had come. */
  close(): Promise<void>;
}

export interface RegisterPorts {
  /** Id of this node. */
  readonly me: number;
  /** ClusterKeys.clusterId: equal on all nodes, another one for each cluster. */
  readonly clusterId: string;
  /** PEM files of this node: its certificate and key, and the certificate of the cluster's CA. */
  readonly keyFiles: { readonly cert: string; readonly key: string; readonly caCert: string };
  /** Folder of a register that lies on this node's own disk (`static`). */
  readonly stateFolder: string;
  /** `fence`: folder that a start of the server clears. */
  readonly runFolder: string;
  /** `fence`: that node is silent on all networks. */
  readonly isSilent: (node: number) => boolean;
  /** Every question is answered by then. */
  readonly timeLimitMs: number;
  /**
   * `static`, `fence`: puts a question to the node that holds the register. Rejects with NotAsked where the
   * question surely did not leave; with anything else where it may have. Never takes longer than the
   * limit by much: what comes after it is not waited for.
   */
  readonly ask: (node: number, question: unknown, timeLimitMs: number) => Promise<unknown>;
  /** Names for sentences, by id. */
  readonly nameOf: (node: number) => string;
}

/** Opens the register of a configuration. Null: an operator decides. No I/O happens here. */
export function openRegister(config: ArbiterConfig, ports: RegisterPorts): Register | null {
  switch (config.type) {
    case 'operator':
      return null;
    case 'directory':
      return new DirectoryRegister({
        path: config.path,
        clusterId: ports.clusterId,
        timeLimitMs: ports.timeLimitMs,
        text: `directory ${config.path}`,
        isOwn: false,
      });
    case 'static':
      return staticRegister(config.node, ports);
    case 'fence':
      return new FenceRegister(config, ports);
    case 'witness': {
      const { name, addr, port } = config;
      const { clusterId, keyFiles, timeLimitMs } = ports;
      return new WitnessRegister({ name, addr, port, clusterId, keyFiles, timeLimitMs });
    }
    case 'etcd': {
      const { clusterId, timeLimitMs } = ports;
      return new EtcdRegister({ config, clusterId, timeLimitMs });
    }
  }
}
