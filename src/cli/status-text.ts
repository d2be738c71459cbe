/** The status of a node and of a module as a person reads it. */
import type {
  Alert,
  BehindStatus,
  DistantStatus,
  FarmStatus,
  GroupStatus,
  ModuleStatus,
  NodeStatus,
  PeerStatus,
  ReplicaStatus,
} from '../host/face.ts';
import { bucketCount } from '../core/farm-types.ts';
import { bytesText } from '../config/values.ts';
import { pairRows } from './pair-text.ts';
import { type Cell, duration, microseconds, plural, stateCell, table } from './format.ts';

/** Share of one group: `33 %`, with the buckets that are only held for old connections. */
function shareText(group: GroupStatus): string {
  const share = `${((100 * group.buckets) / bucketCount).toFixed(0)} %`;
  return group.holding === 0 ? share : `${share} (+${group.holding} held)`;
}

function sharesText(groups: readonly GroupStatus[]): string {
  const [first] = groups;
  if (groups.length === 1 && first !== undefined) return shareText(first);
  return groups.map((group) => `${group.name} ${shareText(group)}`).join(', ');
}

function servingText(farm: FarmStatus): string {
  if (farm.draining) return 'draining';
  return farm.serving ? 'yes' : 'no';
}

function moduleRow(module: ModuleStatus): readonly Cell[] {
  const { farm } = module;
  const own = [module.name, module.mode, stateCell(module)];
  if (module.replica !== null || module.pair !== null)
    return [...own, openText(module), '', mirrorCell(module)];
  if (farm === null) return own;
  return [...own, servingText(farm), sharesText(farm.groups), farm.members.join(' ')];
}

/** Whether the address of a mirror that decides for itself answers here. */
function openText({ pair }: ModuleStatus): string {
  const vip = pair?.vip ?? null;
  if (vip === null) return '';
  return vip.open && pair?.lease.held === true ? 'yes' : 'no';
}

function mirrorCell({ replica, pair }: ModuleStatus): string {
  if (replica !== null) return replicaCell(replica);
  return pair === null ? '' : `${pair.peer.node} ${pair.peer.state ?? 'not heard yet'}`;
}

/** `with db2`, `db2 lost`; then each distant copy: `dr1 in sync`, `dr1 lost`. */
function replicaCell({ peer, peerState, alone, distant }: ReplicaStatus): string {
  const own =
    peerState === 'connected' ? `with ${peer}` : alone ? `without ${peer}` : `${peer} ${peerState}`;
  return [own, ...distant.map((copy) => `${copy.node} ${distantWord(copy)}`)].join(', ');
}

/** `in sync`, `resync`, `lost`, `refused`. */
function distantWord({ state, inSync }: DistantStatus): string {
  if (state === 'none') return 'unknown';
  return state !== 'connected' ? state : inSync ? 'in sync' : 'resync';
}

/** `lacks 1.2 MiB, changes of the last 4 s`, `has all`. */
function lagText(bytes: number, ms: number, isKnown: boolean): string {
  if (isKnown && bytes === 0 && ms === 0) return 'has all';
  // Changes whose size is not known yet: of a copy that has never followed, say.
  const size = isKnown && bytes > 0 ? bytesText(bytes) : 'an amount that is not known';
  return `lacks ${size}, changes of the last ${duration(ms)}`;
}

function distantRows(copy: DistantStatus): readonly (readonly [string, string])[] {
  const { node, state, reason, resync, lagBytes, lagMs, diverted } = copy;
  const why = reason === '' ? '' : ` (${reason})`;
  if (state === 'none') return [['distant copy', `${node} not known`]];
  const lag = lagText(lagBytes, lagMs, copy.isKnown);
  const rows: (readonly [string, string])[] = [
    ['distant copy', `${node} ${distantWord(copy)}${why}; ${lag}`],
  ];
  if (resync !== null && state === 'connected') {
    const kind = resyncKinds[resync.kind] ?? resync.kind;
    const left = `${bytesText(resync.leftBytes)} to go, ${bytesText(resync.bytesPerS)}/s`;
    rows.push(['', `${kind}: ${left}`]);
  }
  if (diverted > 0) rows.push(['', `${plural(diverted, 'change')} found no room in its ring`]);
  return rows;
}

/** `lacks 1.2 MiB, changes of the last 4 s, as db1 said 12 s ago`. */
function behindText({ primary, isKnown, bytes, ms, ageMs }: BehindStatus): string {
  return `${lagText(bytes, ms, isKnown)}, as ${primary} said ${duration(ageMs)} ago`;
}

function peerRow(peer: PeerStatus): readonly Cell[] {
  const reach = { silent: 'silent', heard: 'heard, does not hear us', both: 'ok', self: 'ok' };
  const lans = peer.lans.map((lan) =>
    lan.up ? `${lan.name} ${microseconds(lan.rttUs)}` : `${lan.name} DOWN`,
  );
  const config = peer.sameConfig === null ? 'unknown' : peer.sameConfig ? 'same' : 'DIFFERS';
  return [
    peer.node,
    {
      text: reach[peer.reach],
      readiness: { silent: 'NotReady', heard: 'Transient', both: 'Ready', self: 'Ready' }[
        peer.reach
      ] as 'NotReady' | 'Transient' | 'Ready',
    },
    lans.join(', '),
    peer.connected ? 'open' : 'closed',
    config,
  ];
}

function alertText(alert: Alert, nowMs: number): string {
  const age = duration(nowMs - alert.sinceWallMs);
  return `  ${alert.severity}, for ${age}: ${alert.message}\n`;
}

/** Why a module is not where it should be, one sentence per line. */
function whyText(modules: readonly ModuleStatus[]): string {
  return modules
    .flatMap((module) => module.why.map((reason) => `  ${module.name}: ${reason}\n`))
    .join('');
}

/** Joins the parts that have content by empty lines. */
function parts(...texts: readonly string[]): string {
  return texts.filter((text) => text !== '').join('\n');
}

function titled(title: string, body: string): string {
  return body === '' ? '' : `${title}\n${body}`;
}

/** A node: one line about itself, then its modules, what keeps them, its peers, its alerts. */
export function nodeText(status: NodeStatus, nowMs: number, color: boolean): string {
  const head =
    `${status.node}  holdfast ${status.version}  up ${duration(nowMs - status.startedWallMs)}` +
    `  cluster ${status.clusterSignature.slice(0, 8)}\n`;
  const modules = table(
    ['MODULE', 'MODE', 'STATE', 'SERVING', 'SHARE', 'MEMBERS'],
    status.modules.map(moduleRow),
    color,
  );
  const others = status.peers.filter((peer) => peer.reach !== 'self');
  const peers = table(
    ['PEER', 'HEARTBEATS', 'NETWORKS', 'CHANNEL', 'CONFIGURATION'],
    others.map(peerRow),
    color,
  );
  return parts(
    head,
    modules === '' ? 'no module is installed\n' : modules,
    titled('why:', whyText(status.modules)),
    peers,
    titled('alerts:', status.alerts.map((alert) => alertText(alert, nowMs)).join('')),
  );
}

function farmRows(farm: FarmStatus): readonly (readonly [string, string])[] {
  const leader = farm.leader === null ? '' : `, led by ${farm.leader}`;
  const hook = farm.hook === null ? 'no filter is loaded' : `${farm.hook} on ${farm.device ?? '?'}`;
  return [
    ['serving', servingText(farm)],
    ['view', `${farm.viewEpoch}${leader}: ${farm.members.join(' ')}`],
    ['addresses', farm.vips.join(' ')],
    ['filter', hook],
    ...farm.hookReasons.map((reason) => ['', reason] as const),
    ...farm.groups.map(
      (group) => [`group ${group.name}`, `${shareText(group)}, power ${group.power}`] as const,
    ),
  ];
}

const resyncKinds: Readonly<Record<string, string>> = {
  catch_up: 'what it missed is in memory',
  resume: 'where it stopped',
  dirty: 'what was changed meanwhile',
  roll_back: 'what was changed meanwhile, and what only the other server had is taken back',
  compare: 'compares all by hash, since it is not known what was changed',
  first_copy: 'first copy',
};

/** What a mirror says of two copies that are not the same yet. */
function apartRows(engine: ReplicaStatus['engine']): readonly (readonly [string, string])[] {
  const rows: (readonly [string, string])[] = [];
  const figure = (name: string): number => Number(engine[name] ?? 0);
  const bytes = (name: string): string => bytesText(figure(name));
  const { state, insync } = engine;
  if (state !== undefined && state !== 'in_sync') {
    const base =
      engine['base_lsn'] === undefined
        ? ''
        : `; it can go back to change ${engine['base_lsn']} of epoch ${engine['base_epoch'] ?? '?'}`;
    const undo = figure('undo_bytes') > 0 ? ` (${bytes('undo_bytes')} kept for that)` : '';
    rows.push(['copy', `${state}${base}${undo}`]);
  }
  if (insync === '0') rows.push(['other copy', 'not in sync']);
  if (figure('resync') > 0 && engine['resync_sent'] !== undefined) {
    const kind = resyncKinds[engine['resync_kind'] ?? ''] ?? engine['resync_kind'] ?? '';
    const left = figure('resync_seconds_left');
    const rest = left > 0 ? `, about ${duration(left * 1000)} left` : '';
    rows.push(
      ['resync', `number ${engine['resync'] ?? '?'}: ${kind}`],
      [
        '',
        `${bytes('resync_sent')} sent, ${bytes('resync_left')} to go, ${bytes('resync_rate')}/s${rest}`,
      ],
    );
  }
  const names = figure('dirty_names');
  if (engine['dirty_everything'] === '1')
    rows.push(['missing there', 'not known: all is compared']);
  else if (figure('dirty_bytes') > 0 || figure('dirty_files') > 0 || names > 0) {
    const files = plural(figure('dirty_files'), 'file');
    rows.push(['missing there', `${bytes('dirty_bytes')} of ${files}, ${plural(names, 'name')}`]);
  }
  if (figure('quarantined') > 0) {
    rows.push(['quarantine', `${plural(figure('quarantined'), 'file')} moved there`]);
  }
  return rows;
}

/** Of the figures of an engine, those that an operator looks at first; `detail`: all of them. */
function replicaRows(
  replica: ReplicaStatus,
  detail: boolean,
): readonly (readonly [string, string])[] {
  const { engine, verify } = replica;
  const reason = replica.peerReason === '' ? '' : ` (${replica.peerReason})`;
  const lsn = (name: string): string => engine[name] ?? '?';
  const differing = verify === null ? '' : `${verify.differing} differences`;
  return [
    [
      'peer',
      `${replica.peer} ${replica.peerState}${reason}${replica.alone ? ', going on alone' : ''}`,
    ],
    ['epoch', String(replica.epoch)],
    ['port', String(replica.port)],
    ...replica.directories.map((dir) => ['directory', dir] as const),
    [
      'changes',
      replica.role === 'prim'
        ? `last ${lsn('last')}, durable on ${replica.peer} ${lsn('durable')}, applied ${lsn('applied')}`
        : `durable ${lsn('durable')}, applied ${lsn('applied')}`,
    ],
    ...apartRows(engine),
    ...(replica.behind === null ? [] : [['distant copy', behindText(replica.behind)] as const]),
    ...replica.distant.flatMap(distantRows),
    ...(verify === null
      ? []
      : [['verify', verify.running ? `running, ${differing}` : differing] as const]),
    ...(detail
      ? Object.entries(engine).map(([name, value]) => [`engine ${name}`, value] as const)
      : []),
  ];
}

/** One module in detail. */
export function moduleText(module: ModuleStatus, color: boolean, detail = false): string {
  const resources = Object.entries(module.resources).map(([name, value]) => `${name} ${value}`);
  const rows: readonly (readonly [string, string])[] = [
    ...(module.farm === null ? [] : farmRows(module.farm)),
    ...(module.pair === null ? [] : pairRows(module.pair)),
    ...(module.replica === null ? [] : replicaRows(module.replica, detail)),
    ...(resources.length === 0 ? [] : [['resources', resources.join(', ')] as const]),
    ['restarts', `${module.loopCount} of at most ${module.maxloop}`],
    ['configuration', module.signature.slice(0, 8)],
    ...module.why.map((reason) => ['why', reason] as const),
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  const lines = rows.map(([name, text]) => `  ${name.padEnd(width)}  ${text}\n`);
  return table([module.name, module.mode], [['', stateCell(module)]], color) + lines.join('');
}
