/**
 * The words of a mirror: what goes in (events), what comes out (effects), what the two servers tell
 * each other (messages), what the arbiter keeps (record) and what must outlive a power cut (durable).
 * All of it is plain readonly JSON data.
 *
 * Times are milliseconds of one local monotonic clock (CLOCK_BOOTTIME) and come in with the events.
 */
import type { HealthAction, ScriptAction } from './module-types.ts';

export type { HealthAction, ScriptAction } from './module-types.ts';

export interface MirrorTiming {
  /** Silence on all networks after which a peer is suspect (native/beat says so; here: display). */
  readonly suspectMs: number;
  /** A secondary waits for this long before it claims, so that on a mere cut the primary wins. */
  readonly headStartMs: number;
  /** L: how long a renewal of the lease lets the virtual IP answer. */
  readonly leaseMs: number;
  /** G: from the last heartbeat that was answered, until the old primary's lease is surely over. */
  readonly graceMs: number;
  /** A starting server waits for this long for the other one's word. */
  readonly askMs: number;
  /** Between two tries at the arbiter while an answer is missing; and between looks while waiting. */
  readonly retryMs: number;
  readonly pollMs: number;
  /** How long a secondary that leaves waits for the primary's leave to go. */
  readonly leaveMs: number;
  /** How long a server that ceased to be primary lets the other one be first. */
  readonly handOverMs: number;
  /** The peer is told the status at least this often. */
  readonly statusMs: number;
  /** A primary looks at the register this often, so that its absence is known before it is needed. */
  readonly lookMs: number;
}

/** alone: who is primary stays it. lastprim: whom an operator made it last, or who was it first. */
export type DefaultPrim = 'alone' | 'lastprim' | { readonly node: number };

export interface MirrorConfig {
  readonly me: number;
  readonly peer: number;
  /** Names for sentences, by id. */
  readonly names: Readonly<Record<number, string>>;
  /** False: a mirror without <rfs>; a copy is always in sync with what is nothing. */
  readonly hasData: boolean;
  readonly timing: MirrorTiming;
  readonly defaultPrim: DefaultPrim;
  readonly maxloop: number;
  /** 0: automatic actions are not limited. */
  readonly loopIntervalMs: number;
  /** False: the application counts as healthy once start_prim has succeeded. */
  readonly hasHealth: boolean;
  /** How long after start_prim the application may take until it answers; 0: as long as it likes. */
  readonly startMs: number;
  /** What follows when the application does not answer. */
  readonly healthAction: HealthAction | 'swap';
}

/**
 * The arbiter's register, one for each mirror; changed by compare-and-swap only, durable before the
 * answer. Of one incarnation and epoch there is one record, ever.
 */
export interface ArbiterRecord {
  /** Higher each time that the register is made anew; an older one is refused for good. */
  readonly incarnation: number;
  readonly epoch: number;
  readonly primary: number;
  /** Who has every acknowledged change; ascending. */
  readonly inSync: readonly number[];
  readonly leaseMs: number;
}

/** What is on disk before anything that assumes it. */
export interface Durable {
  /** No data of an older epoch is taken, and none is served under it. */
  readonly promised: number;
  /** Newest record of the register that this server knows of. */
  readonly record: ArbiterRecord | null;
  /** A register of a lower incarnation than this one is abandoned. */
  readonly incarnation: number;
  /** Operator's `failover on|off`. */
  readonly failover: boolean;
  /** defaultprim `lastprim`: where it belongs; null: nowhere yet. */
  readonly home: number | null;
}

/**
 * What the engine's superblock says of this server's copy. none: it never had one. inSync: it ended a
 * resync, or was the primary (so it has all that was acknowledged up to its epoch; whether that is
 * all there is, the arbiter's record says). stale: marked as left behind. inconsistent: in the middle
 * of a resync. failed: its disk.
 */
export type CopyState = 'none' | 'inSync' | 'stale' | 'inconsistent' | 'failed';

/** What a primary's engine says of the peer's copy. */
export type PeerCopy =
  | 'none'
  /** A resync is under way. */
  | 'resync'
  /** It was sent all; that its copy is whole it has not said yet. */
  | 'caughtUp'
  /** Nothing is acknowledged without the peer any more, durably, and its copy is whole, durably. */
  | 'inSync';

export type Reach = 'silent' | 'heard' | 'both';

/** STOP is told too, by the agent of a module that is stopped. */
export type ShownState = 'STOP' | 'WAIT' | 'ALONE' | 'PRIM' | 'SECOND';
export type Readiness = 'NotReady' | 'Transient' | 'Ready';

/**
 * The state of a server in full, told on each change, each statusMs, and when the peer says hello.
 * An old one that arrives late does no harm but delay.
 */
export interface StatusMessage {
  readonly kind: 'status';
  readonly state: ShownState;
  readonly readiness: Readiness;
  /** primary: it holds the epoch of `record`, or is on the way to serve under it. */
  readonly role: 'none' | 'primary' | 'secondary';
  readonly record: ArbiterRecord | null;
  readonly promised: number;
  /** Of Durable: a primary that makes the register anew raises it first, and waits for the peer's. */
  readonly incarnation: number;
  readonly copy: CopyState;
  /**
   * The epoch under which it was primary and will never again serve or acknowledge anything: its
   * application is stopped and its engine closed. 0: none.
   */
  readonly released: number;
  /** A secondary that is about to leave: the primary may go on alone before it does. */
  readonly leaving: boolean;
  /** Of an ordered swap: the other is to take over, whatever its `failover`. */
  readonly handOver: boolean;
  /** Why it would not become primary if it had to; null: it would. */
  readonly refuses: string | null;
  readonly home: number | null;
  readonly failover: boolean;
  /** Send yours: the sender knows nothing of you. */
  readonly hello: boolean;
}

export type Message =
  | StatusMessage
  /** An operator asked the other server for what only the primary can do. */
  | { readonly kind: 'swap'; readonly sync: boolean };

export type StartOrder =
  | 'start'
  /** Become primary, also where nobody was ever; refused with an old copy. */
  | 'prim'
  /** Become primary with what is here: what the other acknowledged since is given up. */
  | 'primforce'
  | 'second'
  | 'secondFullsync'
  | 'secondDiscard';

export type MirrorVerb =
  | StartOrder
  | 'stop'
  | 'forcestop'
  | 'stopstart'
  /** The scripts alone. */
  | 'restart'
  | 'swap'
  | 'swapNosync'
  | 'failoverOn'
  | 'failoverOff';

/** An engine that is told to take a role closes the one it has, in order, first. */
export type EngineOrder =
  /**
   * Directories mounted; acknowledges without the peer from the start (permission of `epoch`). Takes no
   * stream of an epoch below `epoch`. force: with a copy that is not whole (primforce).
   */
  | { readonly what: 'prim'; readonly epoch: number; readonly force: boolean }
  /** prim: from here on nothing waits for the peer, under `epoch`. */
  | { readonly what: 'alone'; readonly epoch: number }
  /** prim: the peer is in the record from this epoch on. Nothing becomes less strict. */
  | { readonly what: 'joined'; readonly epoch: number }
  /** Takes the stream of a primary whose epoch is `floor` or more, and never one of less. */
  | {
      readonly what: 'second';
      readonly floor: number;
      readonly way: 'plain' | 'fullsync' | 'discard';
    }
  /** Drains to the peer, unmounts. */
  | { readonly what: 'close' };

export type ScriptName =
  | 'prestart'
  | 'start_prim'
  | 'stop_prim'
  | 'start_second'
  | 'stop_second'
  | 'poststop';

export type ArbiterAnswer =
  /** Of a read; null: there is no record. */
  | { readonly outcome: 'record'; readonly record: ArbiterRecord | null }
  | { readonly outcome: 'won' }
  /** The register holds this instead; null: nothing. */
  | { readonly outcome: 'lost'; readonly record: ArbiterRecord | null }
  /** A swap that may have been done or not, or may be done later still. */
  | { readonly outcome: 'unknown'; readonly why: string }
  /** Surely nothing was changed and nothing will be. */
  | { readonly outcome: 'unreachable'; readonly why: string };

interface At {
  readonly nowMs: number;
}

export type MirrorEvent =
  /** Once, first: the server (or its agent) starts; the module is stopped here. */
  | (At & { readonly kind: 'boot'; readonly durable: Durable; readonly copy: CopyState })
  /**
   * The agent was started again on a server that went on: a state of `mirrorInit` is replaced by what
   * the former agent had. Answers that it waited for are lost. lapsed: the lease ran out meanwhile.
   */
  | (At & { readonly kind: 'adopt'; readonly state: MirrorState; readonly lapsed: boolean })
  /** auto: asked for by a checker or a rule (its name), not by a person; counted for maxloop. */
  | (At & { readonly kind: 'order'; readonly verb: MirrorVerb; readonly auto: string | null })
  /** `wait` of a checker or a rule: nothing runs here until it is lifted. why null: lifted. */
  | (At & { readonly kind: 'hold'; readonly why: string | null })
  /** Its directories are not those of its copy: it takes no role from here on. why null: they are. */
  | (At & { readonly kind: 'data'; readonly why: string | null })
  /** A ping target is not reachable, or the like: no claim. null: lifted. */
  | (At & { readonly kind: 'veto'; readonly why: string | null })
  | (At & { readonly kind: 'arbiter'; readonly id: number; readonly answer: ArbiterAnswer })
  /** native/beat. heardMs: when the newest heartbeat of the peer arrived (-1: never). */
  | (At & {
      readonly kind: 'peer';
      readonly reach: Reach;
      readonly boot: string;
      readonly hung: boolean;
      readonly heardMs: number;
    })
  /** From the peer's agent, or from one's own proxy for it. */
  | (At & { readonly kind: 'message'; readonly message: Message })
  /** The kernel's lease of the virtual IP runs again / has run out. */
  | (At & { readonly kind: 'lease'; readonly held: boolean })
  /** Answer to the effect `engine` with that id. */
  | (At & {
      readonly kind: 'engineDone';
      readonly id: number;
      readonly ok: boolean;
      readonly why: string;
    })
  /** The other engine, as this one sees it; left: for good, it said so. */
  | (At & { readonly kind: 'enginePeer'; readonly peer: 'connected' | 'lost' | 'left' })
  /**
   * Of a primary. epoch: of the newest order `prim` or `alone` that it had carried out then. alone: it still
   * acknowledged by that order; from the end of a resync on it does not, whether the peer is there or not.
   */
  | (At & {
      readonly kind: 'peerCopy';
      readonly copy: PeerCopy;
      readonly epoch: number;
      readonly alone: boolean;
    })
  /** Own copy, of a secondary or any other. */
  | (At & { readonly kind: 'copy'; readonly copy: CopyState })
  /** The engine died, its directories are gone. */
  | (At & { readonly kind: 'engineGone'; readonly why: string })
  | (At & { readonly kind: 'scriptDone'; readonly ok: boolean; readonly why: string })
  | (At & { readonly kind: 'health'; readonly up: boolean; readonly why: string })
  /** The disk does not keep what must be kept. */
  | (At & { readonly kind: 'persistFailed'; readonly why: string })
  | (At & { readonly kind: 'tick' });

export type MirrorEffect =
  /**
   * Durable before the next effect. When it cannot be: the rest is not performed, but answered as failed
   * (arbiter unreachable, engineDone and scriptDone not ok), and then comes persistFailed.
   */
  | { readonly kind: 'persist'; readonly durable: Durable }
  /** One at a time; each is answered by `arbiter` with its id, at the latest after its time limit. */
  | { readonly kind: 'arbiterRead'; readonly id: number }
  /** from null: there must be no record. The whole of `from` is compared. */
  | {
      readonly kind: 'arbiterSwap';
      readonly id: number;
      readonly from: ArbiterRecord | null;
      readonly to: ArbiterRecord;
    }
  /** May be lost. */
  | { readonly kind: 'send'; readonly message: Message }
  /** One at a time; answered by engineDone. */
  | { readonly kind: 'engine'; readonly id: number; readonly order: EngineOrder }
  /**
   * The module's part of the heartbeats and the rule by which the beat thread renews the lease.
   * consent: heartbeats that say so let the peer's lease live, if their epoch is not above the peer's own;
   * without it they do not.
   * lease off: the filter is shut at once. peer: renewed from the send time of one's own newest heartbeat
   * that a *consenting* heartbeat of the peer echoes, for leaseMs. own: renewed as long as the
   * agent confirms life. When it returns, the beat thread acts by it.
   */
  | {
      readonly kind: 'announce';
      readonly epoch: number;
      readonly running: boolean;
      readonly serving: boolean;
      readonly consent: boolean;
      readonly lease: 'off' | 'peer' | 'own';
    }
  /**
   * probe: is the address answered by somebody else? (for the log and the alert). on: addresses
   * configured, the filter still shut. open: it answers while the lease runs, and is announced.
   * shut: the filter is shut. off: connections reset, addresses removed.
   */
  | { readonly kind: 'vip'; readonly vip: 'probe' | 'on' | 'open' | 'shut' | 'off' }
  /** One at a time; answered by scriptDone. */
  | {
      readonly kind: 'run';
      readonly script: ScriptName;
      readonly current: ShownState;
      readonly next: ShownState;
      readonly action: MirrorAction;
      readonly force: boolean;
    }
  /** The script that runs is to end; its scriptDone still comes. */
  | { readonly kind: 'cancel' }
  /** The `transition` script, beside the others; not answered. */
  | { readonly kind: 'transition'; readonly from: ShownState; readonly to: ShownState }
  /** Ask the application whether it answers, and tell by `health`. */
  | { readonly kind: 'watch'; readonly on: boolean }
  | {
      readonly kind: 'record';
      readonly record: 'transition' | 'refusal' | 'check' | 'arbiter';
      readonly text: string;
      readonly data: Readonly<Record<string, unknown>>;
    };

/** Where the module is. Its shown state and readiness follow from it (mirror-shown.ts). */
export type Phase =
  | 'stopped'
  | 'prestart'
  | 'waiting'
  | 'secondOpening'
  | 'secondStarting'
  | 'second'
  | 'secondStopping'
  | 'secondForcing'
  | 'secondClosing'
  | 'primOpening'
  | 'primGrace'
  | 'primStarting'
  | 'primGate'
  | 'prim'
  | 'primStopping'
  | 'primForcing'
  | 'primClosing'
  | 'poststop';

/** Where the way down leads. */
export type After = 'stop' | 'start' | 'wait' | 'prim' | 'restart';

/** What was asked of the arbiter and is not answered. */
export interface Asked {
  readonly id: number;
  readonly what: 'read' | 'create' | 'claim' | 'degrade' | 'join';
  /** Of a read: what was known when it was asked. */
  readonly from: ArbiterRecord | null;
  readonly to: ArbiterRecord | null;
}

export type TimerName =
  /** The other server's word, or its taking over, is waited for. */
  | 'ask'
  /** The primary has its head start. */
  | 'headStart'
  /** The old primary's lease may still run. */
  | 'grace'
  /** The arbiter is not asked again before. */
  | 'retry'
  /** The primary's leave to go is waited for. */
  | 'leave'
  /** The status is told again. */
  | 'status'
  /** The primary looks at the register. */
  | 'look'
  /** The application that was started must have answered by then. */
  | 'answer';

export interface PeerView {
  readonly reach: Reach | 'unknown';
  readonly boot: string;
  readonly hung: boolean;
  readonly heardMs: number;
  readonly status: StatusMessage | null;
}

export interface EngineView {
  readonly role: 'none' | 'prim' | 'second';
  /** Order that is not answered. */
  readonly pending: { readonly id: number; readonly order: EngineOrder } | null;
  /** To be given once that is answered. */
  readonly next: EngineOrder | null;
  readonly peer: 'unknown' | 'connected' | 'lost' | 'left';
  readonly peerCopy: PeerCopy;
  /** Of the newest order `prim` or `alone`: what the engine said before it counts no more. */
  readonly permit: number;
  /** prim: nothing waits for the peer, as far as is known. */
  readonly alone: boolean;
}

export interface MirrorState {
  readonly config: MirrorConfig;
  readonly nowMs: number;
  readonly bootMs: number;
  readonly phase: Phase;
  readonly after: After;
  readonly action: MirrorAction;
  /** What was asked for at the start, as far as it is still to be done. */
  readonly order: StartOrder;
  readonly durable: Durable;
  /** The disk did not take it last time. */
  readonly unsaved: boolean;
  readonly copy: CopyState;
  /** What the register holds was read since this server last had a role. */
  readonly read: boolean;
  /** Why the arbiter's last answer was none; null: it was one. */
  readonly arbiterWhy: string | null;
  /** Why what it answered cannot be used: rolled back, of an older incarnation, empty. */
  readonly arbiterBad: string | null;
  /** What it answered last; null: no record, or never. */
  readonly seen: ArbiterRecord | null;
  readonly asked: Asked | null;
  /** Swaps whose outcome is not known, of the next epoch all: one of them may be done, or be done still. */
  readonly unsure: readonly ArbiterRecord[];
  readonly arbiterId: number;
  readonly peer: PeerView;
  readonly engine: EngineView;
  readonly engineId: number;
  /** @see StatusMessage */
  readonly released: number;
  readonly handOver: boolean;
  readonly leaving: boolean;
  /** The primary is lost, as far as this secondary knows. */
  readonly suspecting: boolean;
  /** When this server ceased to let the other's lease live; null: it lets it. */
  readonly dissentMs: number | null;
  /** The lease of the virtual IP ran out, in the kernel. */
  readonly lapsed: boolean;
  /** The automatic swap to defaultprim was tried. */
  readonly swapTried: boolean;
  readonly hold: string | null;
  /** Why the data of this server cannot be used; null: nothing is known against it. */
  readonly data: string | null;
  /** It waits for an operator; follow: or for a primary. */
  readonly parked: { readonly why: string; readonly follow: boolean } | null;
  readonly veto: string | null;
  readonly health: boolean | null;
  /** A stop that was asked for while something runs that must end first. */
  readonly pendingDown: Down | null;
  readonly loops: readonly number[];
  readonly timers: Readonly<Partial<Record<TimerName, number>>>;
  /** Why it does not become primary, or what it waits for; null: nothing speaks against it. */
  readonly refusal: string | null;
  /** Why it is not where it was asked to be, newest first. */
  readonly why: readonly string[];
  /** What was told last, so that it is told again only when it changed. */
  readonly told: { readonly status: string; readonly announce: string; readonly shown: string };
}

export type MirrorAction = ScriptAction | 'stopwait' | 'swap' | 'failover';

/**
 * A way down. forced: the scripts are cut short, and stop only with `force`. forHold: of `wait` of a
 * checker; it ends when that is lifted, if nothing had to end yet.
 */
export interface Down {
  readonly after: After;
  readonly action: MirrorAction;
  readonly forced: boolean;
  readonly forHold?: true;
}
