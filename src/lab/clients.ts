import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { HoldfastError } from '../errors.ts';
import type { Host } from './host.ts';
import { clientAddress, type Family } from './plan.ts';
import { textOf, toolPath } from './tool.ts';

/**
 * tcp: one connection per request (connect, GET, read the server's name, close).
 * keep: one connection per client, kept open; a request on it every interval.
 * udp: one datagram per request, answered by one.
 * icmp: one echo request per request; who answers is not said ("echo").
 */
export type LoadKind = 'tcp' | 'keep' | 'udp' | 'icmp';

export interface LoadOptions {
  readonly kind: LoadKind;
  /** Address and port that the clients ask. */
  readonly server: string;
  readonly port?: number;
  /** How many clients, and the number of the first one (0 to 999). Default 1000 from 0. */
  readonly count?: number;
  readonly first?: number;
  /** Time from one request of a client to its next. Default 500. */
  readonly intervalMs?: number;
  /**
   * A try without answer is given up after this and made again; tcp and keep: after a quarter of the
   * wait so far where that is longer. 0: never. Default 100, keep: 0.
   */
  readonly timeoutMs?: number;
  /** Pause after a reset before the next try. Default 10. */
  readonly backoffMs?: number;
  /** Period of the figures given to onStats; 0: none. Default 0. */
  readonly statsMs?: number;
  /** Name of the client namespace; the first one where absent. */
  readonly clients?: string;
}

/** What the clients saw since the last mark. Times in microseconds, CLOCK_BOOTTIME. */
export interface LoadStats {
  readonly mark: string;
  readonly atUs: number;
  readonly sinceUs: number;
  readonly requests: number;
  readonly tries: number;
  readonly answers: number;
  /** Connections ended by RST (ECONNRESET, EPIPE). */
  readonly resets: number;
  /** RST or ICMP port unreachable in answer to the first packet. */
  readonly refused: number;
  /** Connections ended by the server before the answer was complete, or while idle (keep). */
  readonly closed: number;
  readonly unreachable: number;
  readonly timeouts: number;
  /** Datagrams that were answered twice. */
  readonly doubles: number;
  /** Answers that came after their request had been answered by a later try. */
  readonly late: number;
  /** Answers by another server than the client's last one. */
  readonly moves: number;
  readonly localErrors: number;
  /** Longest time from the first try of a request to its answer, and whose it was. */
  readonly longestGapUs: number;
  readonly longestGapClient: number;
  readonly p50GapUs: number;
  readonly p99GapUs: number;
  /** How late the load generator itself was at worst. */
  readonly worstTickUs: number;
  /** Clients without answer now, and for how long the first of them waits. */
  readonly waiting: number;
  readonly oldestWaitUs: number;
  /** Answers per server. */
  readonly servers: Readonly<Record<string, number>>;
  /** Clients by the server that answered them last. */
  readonly clientsByServer: Readonly<Record<string, number>>;
}

/** One client's own account. */
export interface ClientRecord {
  readonly addr: string;
  readonly server: string | null;
  readonly answers: number;
  readonly moves: number;
  readonly lastAnswerUs: number;
  readonly longestGapUs: number;
  /** First try of the request that has no answer yet; 0: none. */
  readonly waitingSinceUs: number;
}

/** What the clients' side of the cable saw since the last mark. */
export interface SniffStats {
  /** When these figures were taken; microseconds, CLOCK_BOOTTIME. */
  readonly atUs: number;
  /** When the newest SYN-ACK or datagram for the clients came from that server. */
  readonly lastUsByMac: Readonly<Record<string, number>>;
  readonly synAcks: number;
  /** SYN-ACKs sent again by the same server. */
  readonly repeated: number;
  /** SYNs answered by two different servers. */
  readonly doubles: number;
  /** TCP segments with RST towards the clients. */
  readonly resets: number;
  readonly udp: number;
  /** Flows beyond what is remembered, and frames that the capture lost: exact only when 0. */
  readonly forgotten: number;
  readonly lost: number;
  readonly synAcksByMac: Readonly<Record<string, number>>;
  readonly udpByMac: Readonly<Record<string, number>>;
  /** ARP replies by sender. */
  readonly arpByMac: Readonly<Record<string, number>>;
  readonly examples: readonly string[];
}

type Record_ = Readonly<Record<string, unknown>>;

/** Wire fields are snake_case; names of servers are values, not fields, and stay. */
function camel(record: Record_): Record_ {
  const name = (key: string) => key.replace(/_(\w)/g, (_, c: string) => c.toUpperCase());
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [name(key), value]));
}

/** Time within which lab_tool must answer a command, on a busy machine. */
const answerMs = 10_000;

/** A lab_tool command that is spoken to by lines: "ID VERB ARG" in, one JSON object per answer out. */
class Spoken {
  readonly child: ChildProcess;
  private readonly waiting = new Map<string, (record: Record_ | Error) => void>();
  private readonly errors: () => string;
  private next = 0;
  private ended = false;
  onRecord: (record: Record_) => void = () => undefined;

  constructor(child: ChildProcess) {
    this.child = child;
    this.errors = textOf(child.stderr);
    child.stdin?.on('error', () => undefined);
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const record = JSON.parse(line) as Record_;
      const { re, ...rest } = record;
      if (typeof re !== 'string') return this.onRecord(rest);
      this.waiting.get(re)?.(rest);
      this.waiting.delete(re);
    });
    child.once('close', () => {
      this.ended = true;
      for (const answer of this.waiting.values()) answer(this.gone());
      this.waiting.clear();
    });
  }

  private gone(): HoldfastError {
    const reason = this.errors() || 'it has ended';
    return new HoldfastError('HF-LAB-013', { reason });
  }

  ask(verb: string, argument = ''): Promise<Record_> {
    if (this.ended) return Promise.reject(this.gone());
    const id = String(++this.next);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(id);
        reject(new HoldfastError('HF-LAB-013', { reason: `no answer to ${verb} in time` }));
      }, answerMs);
      this.waiting.set(id, (answer) => {
        clearTimeout(timer);
        if (answer instanceof Error) reject(answer);
        else resolve(camel(answer));
      });
      this.child.stdin?.write(argument === '' ? `${id} ${verb}\n` : `${id} ${verb} ${argument}\n`);
    });
  }

  /** Asks for the last figures and waits for the end. */
  async stop(): Promise<Record_> {
    const last = await this.ask('stop');
    if (!this.ended) await new Promise((resolve) => this.child.once('close', resolve));
    return last;
  }
}

/** Clients that load one address from inside a client namespace. Ends with its owner. */
export class LoadGenerator {
  readonly options: LoadOptions;
  private readonly tool: Spoken;

  private constructor(tool: Spoken, options: LoadOptions) {
    this.tool = tool;
    this.options = options;
  }

  static async start(space: Host, options: LoadOptions): Promise<LoadGenerator> {
    const family: Family = options.server.includes(':') ? 6 : 4;
    const micros = (ms: number) => Math.round(ms * 1000);
    const argv = [
      toolPath(),
      'load',
      `kind=${options.kind}`,
      `server=${options.server}`,
      `port=${options.port ?? 80}`,
      `first=${clientAddress(space.state.index, options.first ?? 0, family)}`,
      `count=${options.count ?? 1000}`,
      `interval_us=${micros(options.intervalMs ?? 500)}`,
      `timeout_us=${micros(options.timeoutMs ?? (options.kind === 'keep' ? 0 : 100))}`,
      `backoff_us=${micros(options.backoffMs ?? 10)}`,
      `stats_us=${micros(options.statsMs ?? 0)}`,
    ];
    const { child } = await space.spawn(argv);
    const generator = new LoadGenerator(new Spoken(child), options);
    // A wrong option ends it at once: say so here rather than at the first question.
    await generator.stats();
    return generator;
  }

  onStats(listener: (stats: LoadStats) => void): void {
    this.tool.onRecord = (record) => listener(camel(record) as unknown as LoadStats);
  }

  /** Figures since the last mark. */
  async stats(): Promise<LoadStats> {
    return (await this.tool.ask('stats')) as unknown as LoadStats;
  }

  /** Begins a phase: returns the figures of the one that ends, and counts from 0. */
  async mark(name: string): Promise<LoadStats> {
    return (await this.tool.ask('mark', name)) as unknown as LoadStats;
  }

  async clients(): Promise<readonly ClientRecord[]> {
    const answer = await this.tool.ask('clients');
    return (answer['clients'] as readonly Record_[]).map(
      (client) => camel(client) as unknown as ClientRecord,
    );
  }

  /** No new requests; those that wait go on. */
  async pause(): Promise<void> {
    await this.tool.ask('pause');
  }

  async resume(): Promise<void> {
    await this.tool.ask('resume');
  }

  /** Ends the clients; returns the figures since the last mark. */
  async stop(): Promise<LoadStats> {
    return (await this.tool.stop()) as unknown as LoadStats;
  }

  /** Waits until a condition on the figures holds; rejects with them after timeoutMs. */
  async until(what: (stats: LoadStats) => boolean, timeoutMs: number): Promise<LoadStats> {
    const end = performance.now() + timeoutMs;
    while (true) {
      const stats = await this.stats();
      if (what(stats)) return stats;
      if (performance.now() > end) {
        const seen = JSON.stringify(stats);
        throw new HoldfastError('HF-LAB-012', { waitMs: timeoutMs, seen });
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** Counts on the clients' side of the cable who answered. */
export class Sniffer {
  private readonly tool: Spoken;

  private constructor(tool: Spoken) {
    this.tool = tool;
  }

  static async start(space: Host, device: string): Promise<Sniffer> {
    const { child } = await space.spawn([toolPath(), 'sniff', device]);
    const sniffer = new Sniffer(new Spoken(child));
    await sniffer.stats();
    return sniffer;
  }

  async stats(): Promise<SniffStats> {
    return (await this.tool.ask('stats')) as unknown as SniffStats;
  }

  /** Returns the figures so far and counts from 0. */
  async mark(): Promise<SniffStats> {
    return (await this.tool.ask('mark')) as unknown as SniffStats;
  }

  async stop(): Promise<SniffStats> {
    return (await this.tool.stop()) as unknown as SniffStats;
  }
}
