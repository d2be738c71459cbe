/** What is made of one takeover of a mirror: the gap its clients saw, and where the time went. */
import type { ClientRecord } from '../../src/lab/clients.ts';
import type { EventRecord } from '../../src/host/face.ts';
import { percentile } from '../failover/figures.ts';

/** power: the cable is pulled. kill: SIGKILL of the daemon and its agent. swap: an order. */
export const triggers = ['power', 'kill', 'swap'] as const;
export type Trigger = (typeof triggers)[number];

/** Parts of a takeover, one after the other, ms. The first may begin before the clients' gap. */
export interface Stages {
  /** From the last heartbeat until the primary is suspect; of a swap: until it has ended its service. */
  readonly detection: number;
  /** Until the register grants the next epoch, the head start of a suspect primary included. */
  readonly claim: number;
  /** Until the former lease is over and the engine is open, whichever is later. */
  readonly grace: number;
  /** start_prim. */
  readonly application: number;
  /** Health check, the filter opens, announcements, first answers. */
  readonly address: number;
}

export const stageNames = ['detection', 'claim', 'grace', 'application', 'address'] as const;

/** One takeover, as the probing clients saw it. */
export interface Round {
  readonly trigger: Trigger;
  /** Who was primary. */
  readonly victim: string;
  /** Longest wait for an answer of any client. */
  readonly gapMs: number;
  /** Longest wait in the time before, when nothing happened. */
  readonly quietMs: number;
  /** How late the prober was at worst: the gap is known to this precision only. */
  readonly lateMs: number;
  /** Servers that answer for the address once the other one has taken over. */
  readonly answerers: number;
  /** null: of keepalived, or the journals do not tell of one plain takeover. */
  readonly stages: Stages | null;
}

/** Clients that wait, by their place in the list: since when, microseconds of CLOCK_BOOTTIME. */
export type Waits = ReadonlyMap<number, number>;

export function waitsOf(records: readonly ClientRecord[]): Waits {
  return new Map(
    [...records.entries()].flatMap(([index, { waitingSinceUs }]) =>
      waitingSinceUs > 0 ? [[index, waitingSinceUs] as const] : [],
    ),
  );
}

/**
 * When the client that waited longest was answered, ms of CLOCK_BOOTTIME; `seen` is how each client
 * was last seen waiting. null: it was not seen, since its wait was shorter than the time between looks.
 */
export function answeredMs(records: readonly ClientRecord[], seen: Waits): number | null {
  const longest = [...records.keys()].toSorted(
    (a, b) => (records[b]?.longestGapUs ?? 0) - (records[a]?.longestGapUs ?? 0),
  )[0];
  const since = longest === undefined ? undefined : seen.get(longest);
  if (longest === undefined || since === undefined) return null;
  return (since + (records[longest]?.longestGapUs ?? 0)) / 1000;
}

/** What the journals of both servers say of one takeover. */
export interface Journals {
  readonly trigger: Trigger;
  /** Of the server that was primary; of no use where it lost its power or its agent. */
  readonly former: readonly EventRecord[];
  /** Of the server that took over. Both: since shortly before the fault. */
  readonly next: readonly EventRecord[];
  readonly answeredMs: number;
}

/** Where the time went; null: an event is missing, or they are not in the order of a plain takeover. */
export function stagesOf(journals: Journals): Stages | null {
  const { trigger, next } = journals;
  const isOf = (key: string, value: string) => (event: EventRecord) =>
    event.kind === 'transition' && event.data[key] === value;
  const instants = [
    ...(trigger === 'swap' ? orderedMs(journals) : silentMs(journals)),
    next.find(({ data }) => /^epoch \d+ granted/.test(String(data['why'])))?.bootMs,
    next.find(isOf('from', 'primGrace'))?.bootMs,
    next.find(isOf('to', 'primGate'))?.bootMs,
    journals.answeredMs,
  ];
  const [begin, lost, granted, free, started, answered] = instants;
  if (begin === undefined || lost === undefined || granted === undefined) return null;
  if (free === undefined || started === undefined || answered === undefined) return null;
  const stages = {
    detection: lost - begin,
    claim: granted - lost,
    grace: free - granted,
    application: started - free,
    address: answered - started,
  };
  return Object.values(stages).every((ms) => ms >= 0) ? stages : null;
}

/** The last heartbeat, and when the mirror had waited in vain for the next one. */
function silentMs({ next }: Journals): readonly (number | undefined)[] {
  const suspect = next.find(({ data }) => typeof data['suspectMs'] === 'number');
  const heard = suspect?.data['heardMs'];
  return [typeof heard === 'number' ? heard : undefined, suspect?.bootMs];
}

/** The order, and the end of the former primary's service. */
function orderedMs({ former }: Journals): readonly (number | undefined)[] {
  const order = former.find(({ kind }) => kind === 'command');
  const end = former.find(
    ({ kind, data }) => kind === 'transition' && data['from'] === 'primClosing',
  );
  return [order?.bootMs, end?.bootMs];
}

/** What a row of the table says of its rounds. */
export interface Summary {
  readonly rounds: number;
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly maxMs: number;
  readonly quietMaxMs: number;
  readonly lateMaxMs: number;
  /** Rounds after which more than one server answered for the address. */
  readonly doubles: number;
  /** Medians of each part, over the rounds whose journals tell; null: there are none. */
  readonly stages: Stages | null;
  readonly told: number;
  /** Median of the gap less the start of the application, over the same rounds. */
  readonly lessApplicationMs: number | null;
}

export function summaryOf(rounds: readonly Round[]): Summary {
  const gaps = rounds.map(({ gapMs }) => gapMs);
  const told = rounds.flatMap(({ stages, gapMs }) => (stages === null ? [] : [{ stages, gapMs }]));
  const median = (name: keyof Stages) =>
    percentile(
      told.map(({ stages }) => stages[name]),
      0.5,
    );
  const less = told.map(({ stages, gapMs }) => gapMs - stages.application);
  return {
    rounds: rounds.length,
    p50Ms: percentile(gaps, 0.5),
    p95Ms: percentile(gaps, 0.95),
    maxMs: percentile(gaps, 1),
    quietMaxMs: Math.max(...rounds.map(({ quietMs }) => quietMs)),
    lateMaxMs: Math.max(...rounds.map(({ lateMs }) => lateMs)),
    doubles: rounds.filter(({ answerers }) => answerers > 1).length,
    stages:
      told.length === 0
        ? null
        : {
            detection: median('detection'),
            claim: median('claim'),
            grace: median('grace'),
            application: median('application'),
            address: median('address'),
          },
    told: told.length,
    lessApplicationMs: told.length === 0 ? null : percentile(less, 0.5),
  };
}
