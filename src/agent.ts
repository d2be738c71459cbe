/**
 * The agent: started by holdfastd, which passes it the heartbeat thread's socket (fd 3) and shared
 * memory (fd 4). It puts the parts together, and ends with exit status 64 where starting it again
 * would not help.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectAgent } from './api/client.ts';
import { ClusterService } from './api/cluster.ts';
import { apiPort, dialNode, otherNodes } from './api/dial.ts';
import { openPeers } from './api/peers.ts';
import { clusterKeys, keyFiles, loadCa, loadKeys } from './api/pki.ts';
import { TokenStore } from './api/token.ts';
import { HoldfastError } from './errors.ts';
import { Alerts } from './host/alerts.ts';
import { decodeJson, encodeJson } from './host/codec.ts';
import { Fabric } from './host/fabric.ts';
import { Journal } from './host/journal.ts';
import { takeLock } from './host/lock.ts';
import { createLogger, type Logger } from './host/logger.ts';
import { HostNode, loadCluster } from './host/node.ts';
import { PeerTable } from './host/peers.ts';
import { engineAccess } from './host/replica.ts';
import { MacFile } from './host/runtime.ts';
import { openBeat } from './native/beat.ts';
import { openFilter } from './native/filter.ts';
import { openLink } from './native/link.ts';
import { paths as ownPaths } from './paths.ts';

/** holdfastd does not start an agent again that ended with this. */
const exitFinal = 64;

/**
 * Short against the lease of a mirror that is alone, which ends when the agent has been quiet for as long as it:
 * 300 ms in the profile `fast`.
 */
const lifeSignMs = 50;

async function main(): Promise<void> {
  const paths = ownPaths();
  const beat = openBeat();
  const logger = createLogger({
    level: 'info',
    file: join(paths.log, 'holdfast.log'),
    stream: process.stderr,
    journald: process.env['JOURNAL_STREAM'] !== undefined,
    wallMs: () => Date.now(),
    nowMs: () => beat.nowMs(),
    onTrouble: (message) => alerts.set('log', message !== null, 'warning', message ?? ''),
  });
  const alerts: Alerts = new Alerts(
    () => Date.now(),
    ({ raised, alert }) => {
      journal?.append({
        kind: 'alert',
        text: `${raised ? 'raised' : 'ended'}: ${alert.message}`,
        data: { id: alert.id, severity: alert.severity, raised },
      });
      logger[raised ? 'warn' : 'info'](`alert ${raised ? 'raised' : 'ended'}: ${alert.message}`, {
        id: alert.id,
      });
    },
  );
  let journal: Journal | null = null;
  process.on('uncaughtException', (error) => void fail(logger, error));
  process.on('unhandledRejection', (error) => void fail(logger, error));

  takeLock(paths.state);
  const cluster = loadCluster(paths);
  const keys = loadKeys(paths);
  const name = keys.node;
  const me = cluster.nodes.find((node) => node.name === name)?.id;
  if (me === undefined) throw new HoldfastError('HF-AGENT-012', { name });
  // Without heartbeats the leases lapse and others take over: this agent must not go on deciding.
  beat.onLost(() => process.exit(1));
  // The sign of life does not wait for anything that the agent does.
  setInterval(() => beat.confirm(), lifeSignMs);

  journal = await Journal.open({
    folder: join(paths.state, 'journal'),
    node: name,
    wallMs: () => Date.now(),
    bootMs: () => beat.nowMs(),
    onTrouble: (message) => alerts.set('journal', message !== null, 'critical', message ?? ''),
  });
  const { beatKey, sipKey, clusterId } = clusterKeys(keys.secret);
  const peerTable = new PeerTable(cluster, me, alerts, new MacFile(paths.run));
  const fabric = new Fabric(cluster, {
    me,
    beat,
    link: openLink(),
    peers: peerTable,
    openFilter,
    pinDir: paths.bpf,
    clusterId,
    beatKey,
    hashKey: sipKey,
  });
  const channel = await openPeers({
    keys,
    peers: otherNodes(cluster, name),
    signature: () => node.cluster().config.signature,
    codec: { encode: encodeJson, decode: decodeJson },
  });
  const node: HostNode = new HostNode({
    paths,
    name,
    me,
    cluster,
    clusterXml: readFileSync(paths.clusterXml, 'utf8'),
    beat,
    fabric,
    peerTable,
    channel,
    alerts,
    journal,
    logger,
    secret: keys.secret,
    keyFiles: keyFiles(paths),
    engine: engineAccess,
    onCluster: (config) => channel.setPeers(otherNodes(config, name)),
    // Ended by an order, it must not come back by itself.
    onShutdown: () => void end('shutdown', exitFinal),
    remote: (other) => {
      const found = otherNodes(node.cluster().config, name).find((entry) => entry.name === other);
      if (found === undefined) throw new HoldfastError('HF-AGENT-009', { node: other });
      return connectAgent({ dial: () => dialNode(found, apiPort, keys), where: other });
    },
  });
  const service = new ClusterService({
    agent: node,
    keys,
    ca: loadCa(paths),
    tokens: new TokenStore(keyFiles(paths).tokens, name),
  });
  channel.onSignature((peer, signature) => void service.onSignature(peer, signature));
  await node.load();
  // The HTTP server takes as long to load as all the rest; the farm does not wait for it.
  const { startApi } = await import('./api/server.ts');
  const api = await startApi(node, { keys, cluster: service, socketPath: paths.agentSocket });
  logger.info('agent started', { node: name, id: me, pid: process.pid });
  beat.ready();

  let ending = false;
  async function end(why: string, status: number): Promise<void> {
    if (ending) return;
    ending = true;
    logger.info('agent ends', { why });
    await node.stopAll();
    await Promise.allSettled([api.close(), channel.close(), journal?.close(), logger.close()]);
    process.exit(status);
  }
  process.on('SIGTERM', () => void end('SIGTERM', 0));
  process.on('SIGINT', () => void end('SIGINT', 0));
}

/** A programmer's error: better a fresh agent than one in a state nobody thought of. */
async function fail(logger: Logger, error: unknown): Promise<void> {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  logger.error(`agent failed: ${text}`);
  await Promise.race([logger.flush(), new Promise((resolve) => setTimeout(resolve, 500))]);
  process.exit(1);
}

main().catch((error: unknown) => {
  const isFinal = error instanceof HoldfastError && error.exit === exitFinal;
  const text =
    error instanceof HoldfastError
      ? `${error.line()}\nhint: ${error.hint}`
      : error instanceof Error
        ? (error.stack ?? error.message)
        : String(error);
  process.stderr.write(`${text}\n`);
  process.exit(isFinal ? exitFinal : 1);
});
