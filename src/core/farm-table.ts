/** From a view to the table that one node's filter enforces, and its announcement. */
import { emptyMaps, exceptMaps, hasBucket, isEmpty, ownedBy, unionMaps } from './bits.ts';
import { groupsOf, viewOpens, type Work } from './farm-state.ts';
import {
  bitmapBytes,
  bucketCount,
  type CompiledTable,
  type FarmEffect,
  nobody,
  summaryFlag,
  tableFlag,
  type View,
} from './farm-types.ts';

/** The tables of a node that owns and holds nothing. */
export function silentTables(groups: number): CompiledTable[] {
  return Array.from({ length: groups }, () => ({
    flags: new Uint8Array(bucketCount),
    owner: new Uint8Array(bucketCount).fill(nobody),
    holder: new Uint8Array(bucketCount).fill(nobody),
  }));
}

/**
 * Compiles a view for one node. `opens` false: it owns nothing of what the view gives it, and keeps
 * its connections there.
 */
export function compile(
  view: View,
  me: number,
  opens: boolean,
  isQuiet: (held: boolean) => boolean,
): CompiledTable[] {
  const holders = Object.entries(view.holders).map(([node, maps]) => ({
    node: Number(node),
    maps,
  }));
  return view.owners.map((owner, g) => {
    const flags = new Uint8Array(bucketCount);
    const holder = new Uint8Array(bucketCount).fill(nobody);
    for (const { node, maps } of holders) {
      const map = maps[g];
      if (map === undefined) continue;
      for (let i = 0; i < bitmapBytes; i++) {
        if (map[i] === 0) continue;
        for (let b = i * 8; b < i * 8 + 8; b++) if (hasBucket(map, b)) markHolder(b, node);
      }
    }
    function markHolder(b: number, node: number): void {
      if (node === me) {
        flags[b] = (flags[b] ?? 0) | tableFlag.hold;
        return;
      }
      holder[b] = node;
      if (owner[b] === me && isQuiet(true)) flags[b] = (flags[b] ?? 0) | tableFlag.quiet;
    }
    for (let b = 0; b < bucketCount; b++) {
      if (owner[b] !== me) continue;
      flags[b] = opens ? (flags[b] ?? 0) | tableFlag.own : tableFlag.hold;
    }
    return { flags, owner, holder };
  });
}

function givesBuckets(view: View | null, me: number): boolean {
  return view?.owners.some((owner) => owner.includes(me)) === true;
}

/** The install that brings the filter to what the state says; null where it is there already. */
export function refreshTable(work: Work): FarmEffect | null {
  const { me } = work.config;
  const eligible =
    work.role !== 'stopped' &&
    (work.ready || work.out.rules.mayOwnUnready()) &&
    work.settled &&
    work.excludedBy === null;
  if (!eligible && !work.closing && work.view !== null) {
    // Also a view that was only just taken is void from here on: the leader learns it by the mark.
    if (!isEmpty(work.owned) || (viewOpens(work) && givesBuckets(work.view, me)))
      work.closing = true;
  }
  const opens = eligible && !work.closing && viewOpens(work);
  const running = work.role !== 'stopped';
  const name = running && work.view !== null ? `${work.view.epoch}.${work.view.leader}` : 'none';
  const key = `${name} ${opens}`;
  if (key === work.compiled) return null;
  const tables =
    running && work.view !== null
      ? compile(work.view, me, opens, work.out.rules.isQuiet)
      : silentTables(groupsOf(work));
  work.compiled = key;
  work.install++;
  const none = emptyMaps(groupsOf(work));
  const given = running && work.view !== null ? ownedBy(work.view.owners, me) : none;
  const left = (running ? work.view?.holders[me] : undefined) ?? none;
  work.wanted = opens ? given : none;
  work.held = opens ? left : unionMaps(left, given);
  // Nothing to give up: the view may be named before the filter has it. Whom it leaves out must
  // hear of it in the same heartbeat that would tell him that he is heard again.
  const onlyGains = isEmpty(exceptMaps(work.owned, work.wanted));
  if (onlyGains && running && work.view !== null) work.stands = standFor(work.view);
  work.owned = unionMaps(work.owned, work.wanted);
  return { kind: 'install', install: work.install, epoch: work.view?.epoch ?? 0, tables };
}

/** The filter enforces what was asked last: what it owned before is given up. */
export function onInstalled(work: Work, install: number): void {
  if (install !== work.install || work.installDone === install) return;
  work.installDone = install;
  work.owned = work.wanted;
  work.installedMs = work.nowMs;
  work.installed =
    work.view === null || work.role === 'stopped'
      ? null
      : { epoch: work.view.epoch, leader: work.view.leader };
  work.stands = work.installed === null || work.view === null ? null : standFor(work.view);
}

export function standFor(view: View): { epoch: number; members: bigint } {
  return { epoch: view.epoch, members: view.members };
}

/** What heartbeats say of this node; out before an install, so that an opening is never unsaid. */
export function refreshAnnouncement(work: Work): void {
  const stopping = work.role === 'stopped';
  const shut = isEmpty(work.owned);
  const running = !(stopping && shut && work.installDone === work.install);
  const { stands } = work;
  const serving = !stopping && work.excludedBy === null && stands !== null;
  const flags =
    (running ? summaryFlag.running : 0) |
    (!stopping && work.ready ? summaryFlag.ready : 0) |
    (!stopping && work.draining ? summaryFlag.draining : 0) |
    (shut ? 0 : summaryFlag.open);
  const viewEpoch = stands?.epoch ?? 0;
  const viewMembers = serving ? stands.members : 0n;
  const last = work.announced;
  if (
    last?.viewEpoch === viewEpoch &&
    last.viewMembers === viewMembers &&
    last.flags === flags &&
    last.serving === serving
  ) {
    return;
  }
  const announce = { kind: 'announce', viewEpoch, viewMembers, flags, serving } as const;
  work.announced = announce;
  // First that its filter is shut, then that it ended: the end alone could be that of a crash.
  if (!running) work.out.effects.push({ ...announce, flags: summaryFlag.running });
  work.out.effects.push(announce);
}
