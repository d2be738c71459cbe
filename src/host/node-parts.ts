/** What a node is put together from, by src/agent.ts. */
import type { ClusterConfig } from '../config/model.ts';
import type { Beat } from '../native/beat.ts';
import type { Paths } from '../paths.ts';
import type { Alerts } from './alerts.ts';
import type { Fabric } from './fabric.ts';
import type { PeerChannel, RemoteAgent } from './face.ts';
import type { Journal } from './journal.ts';
import type { Logger } from './logger.ts';
import type { PeerTable } from './peers.ts';
import type { EngineAccess } from './replica.ts';

export interface NodeParts {
  readonly paths: Paths;
  readonly name: string;
  readonly me: number;
  readonly cluster: ClusterConfig;
  readonly clusterXml: string;
  readonly beat: Beat;
  readonly fabric: Fabric;
  readonly peerTable: PeerTable;
  readonly channel: PeerChannel;
  readonly alerts: Alerts;
  readonly journal: Journal;
  readonly logger: Logger;
  /** The cluster's configuration has changed: channel and API follow. */
  readonly onCluster: (cluster: ClusterConfig) => void;
  readonly onShutdown: () => void;
  /** Another node's agent, for orders that are its own to carry out. HF-AGENT-009. */
  readonly remote: (node: string) => RemoteAgent;
  /** 32 bytes that the cluster shares. */
  readonly secret: Uint8Array;
  /** This node's certificate and key, PEM files. */
  readonly keyFiles: { readonly cert: string; readonly key: string; readonly caCert: string };
  /** How replication engines are started and reached. */
  readonly engine: EngineAccess;
}
