/** cluster init, join, status, token, config: which servers belong together. */
import { hostname } from 'node:os';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { ClusterStatus } from '../../api/client.ts';
import type { LanAddress } from '../../api/join.ts';
import { parseDuration } from '../../config/values.ts';
import { HoldfastError } from '../../errors.ts';
import { readText } from '../files.ts';
import { duration, plural, table } from '../format.ts';
import {
  act,
  type CommonOptions,
  oneAgent,
  onNodes,
  printJson,
  type Run,
  withJson,
  withNodes,
} from '../run.ts';

interface InitOptions extends CommonOptions {
  readonly node: string;
  readonly name?: string;
  readonly lan: readonly LanAddress[];
}

interface JoinOptions extends CommonOptions {
  readonly node: string;
  readonly token: string;
  readonly lan: readonly LanAddress[];
}

interface TokenOptions extends CommonOptions {
  readonly ttl?: string;
  readonly replace?: string;
}

/** `NAME=ADDR` of --lan, collected in the order given. */
function lanOption(text: string, before: readonly LanAddress[]): readonly LanAddress[] {
  const parts = /^([^=]+)=(.+)$/.exec(text);
  const [, name, addr] = parts ?? [];
  if (name === undefined || addr === undefined) {
    throw new InvalidArgumentError('Write NAME=ADDR, for example --lan blue=10.0.0.1');
  }
  return [...before, { name, addr }];
}

function withLans(command: Command, text: string): Command {
  const node = new Option('--node <name>', 'the name of this server in the cluster');
  return command
    .addOption(node.default(hostname().replace(/\..*/, ''), 'its host name'))
    .addOption(new Option('--lan <name=addr>', text).argParser(lanOption).default([], 'none'));
}

/** Adds `cluster …`. */
export function clusterCommands(program: Command, run: Run): void {
  const cluster = program.command('cluster').description('make a cluster and look at it');
  initCommand(cluster, run);
  joinCommand(cluster, run);
  const status = cluster.command('status').description('the nodes and how this one reaches them');
  act(run, withNodes(status), async (options: CommonOptions) => {
    await onNodes(run, options, (client) => client.clusterStatus(), clusterText);
  });
  tokenCommand(cluster, run);
  configCommand(cluster, run);
}

/** Loaded where it is needed: it takes as long as all other commands together. */
function certificates() {
  return import('../../api/join.ts');
}

const nextStep = 'next: start holdfastd here (`systemctl enable --now holdfastd`)';

function initCommand(cluster: Command, run: Run): void {
  const command = withJson(
    cluster.command('init').description('make a cluster of this server and print the join line'),
  ).option('--name <cluster>', 'a name for the cluster, shown in its certificates');
  withLans(command, 'a network and the address of this server there; once per network');
  act(run, command, async (options: InitOptions) => {
    const { clusterInit } = await certificates();
    const { node, name, lan: lans } = options;
    const named = name === undefined ? {} : { name };
    const result = await clusterInit({ node, lans, paths: run.io.paths, ...named });
    if (options.json === true) {
      printJson(run.io, { node, ...result });
      return;
    }
    run.io.out(
      `this server is ${node}, the first of a new cluster; its configuration is ${run.io.paths.clusterXml}\n` +
        `${nextStep}, then on each other server, once:\n\n  ${result.joinLine}\n\n` +
        'the token admits one server; `holdfast cluster token` prints further ones\n',
    );
  });
}

function joinCommand(cluster: Command, run: Run): void {
  const command = withJson(
    cluster.command('join').description('make this server a node of an existing cluster'),
  )
    .argument('<address>', 'a server of the cluster, with :PORT where it is not the usual one')
    .requiredOption('--token <token>', 'what `cluster init` or `cluster token` printed there');
  withLans(command, 'the address of this server on a network, where its subnet does not tell');
  act(run, command, async (options: JoinOptions, addr = '') => {
    const { clusterJoin } = await certificates();
    const { node, token, lan: lans } = options;
    const result = await clusterJoin({ addr, token, node, lans, paths: run.io.paths });
    if (options.json === true) {
      printJson(run.io, result);
      return;
    }
    const away =
      result.pending.length === 0
        ? ''
        : `${result.pending.join(', ')} did not answer and will be told when back\n`;
    run.io.out(
      `this server is ${node}; the cluster is ${result.nodes.join(', ')}\n${away}${nextStep}\n`,
    );
  });
}

function tokenCommand(cluster: Command, run: Run): void {
  const command = withNodes(
    cluster.command('token').description('print a join line for one more server'),
  )
    .option('--ttl <duration>', 'how long it is valid, such as 10m or 2h')
    .option('--replace <node>', 'the joining server takes the place of this node');
  act(run, command, async (options: TokenOptions) => {
    const ttlMs = options.ttl === undefined ? {} : { ttlMs: durationOption(options.ttl) };
    const client = oneAgent(run, options, 'cluster token');
    const issued = await client.issueToken({ ...ttlMs, replaces: options.replace ?? null });
    if (options.json === true) printJson(run.io, issued);
    else
      run.io.out(
        `${issued.joinLine}\n(valid for one server and ${duration(issued.expiresInMs)})\n`,
      );
  });
}

function durationOption(text: string): number {
  const parsed = parseDuration(text, 's');
  if (parsed.ok) return parsed.ms;
  const expected = 'a duration such as 90s, 10m or 2h';
  throw new HoldfastError('HF-CLI-005', { value: text, expected, command: 'cluster token' });
}

function configCommand(cluster: Command, run: Run): void {
  const command = withNodes(
    cluster
      .command('config')
      .description('print the cluster.xml in force; with a file, apply that one on all nodes'),
  ).argument('[file]', 'the new cluster.xml, "-" for standard input');
  act(run, command, async (options: CommonOptions, file) => {
    const client = oneAgent(run, options, 'cluster config');
    if (file === undefined) {
      const xml = await client.clusterXml();
      if (options.json === true) printJson(run.io, { xml });
      else run.io.out(xml);
      return;
    }
    const status = await client.applyClusterXml(await readText(file), 'cluster');
    if (options.json === true) printJson(run.io, status);
    else run.io.out(clusterText(status));
  });
}

const reachTexts = {
  silent: 'silent',
  heard: 'heard, does not hear us',
  both: 'ok',
  self: 'this node',
} as const;

function clusterText(status: ClusterStatus): string {
  const rows = status.nodes.map((node) => {
    const self = node.reach === 'self';
    const config = node.sameConfig === null ? 'unknown' : node.sameConfig ? 'same' : 'DIFFERS';
    return [
      node.node,
      String(node.id),
      node.addrs.map(({ lan, addr }) => `${lan}=${addr}`).join(' '),
      reachTexts[node.reach],
      self ? '' : node.connected ? 'open' : 'closed',
      self ? '' : config,
      node.admits ? 'yes' : '',
    ];
  });
  const head = ['NODE', 'ID', 'ADDRESSES', 'HEARTBEATS', 'CHANNEL', 'CONFIGURATION', 'ADMITS'];
  return (
    `${plural(status.nodes.length, 'node')}, configuration ${status.signature.slice(0, 8)}, ` +
    `CA ${status.caFingerprint.slice(0, 16)}\n\n${table(head, rows, false)}`
  );
}
