import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { errnoOf, syncDirectory } from '../module/durable.ts';
import { Appender, type AppendTarget } from './appender.ts';
import type { EventRecord } from './face.ts';

/*
 * The event journal: what happened on this node, across restarts. On disk: segments
 * `events-<first seq>.log` of lines `<crc32 of the JSON, 8 hex digits> <JSON>`, the oldest removed
 * when there are too many. In memory: the newest records, which answer all queries.
 */

export interface JournalOptions {
  /** Folder of the segments; made where it is missing. */
  readonly folder: string;
  /** Name of this node, as records carry it. */
  readonly node: string;
  wallMs(): number;
  bootMs(): number;
  /** A sentence while records cannot be stored, null when they can again: raise and clear an alert. */
  onTrouble(message: string | null): void;
  readonly ringRecords?: number;
  readonly segmentBytes?: number;
  readonly segments?: number;
  readonly retryMs?: number;
}

/** What the caller says of an event; the journal adds number, times and node. */
export interface JournalEntry {
  readonly kind: EventRecord['kind'];
  readonly module?: string | null;
  readonly text: string;
  readonly data?: EventRecord['data'];
}

export interface JournalStats {
  /** Records that never reached the disk because it took none for too long. */
  readonly lost: number;
  /** Lines found damaged (not a torn tail, which a crash leaves) when the journal was opened. */
  readonly damaged: number;
  /** Bytes of a torn last line dropped when it was opened. */
  readonly tornBytes: number;
}

/** Newest records kept in memory: some 2 MiB, 20 MiB at the very most; twice that between cuts. */
const ringRecords = 4096;
const segmentBytes = 1024 * 1024;
const segments = 16;
const retryMs = 1000;
/** The newest segments that are read at open: more than the ring holds of records of usual size. */
const readSegments = 4;
const maxTextChars = 1000;
const maxDataChars = 4000;
const segmentSyntax = /^events-(\d{12})\.log$/;

export class Journal {
  readonly #options: JournalOptions;
  readonly #appender: Appender;
  readonly #listeners = new Set<(event: EventRecord) => void>();
  #ring: EventRecord[] = [];
  #lastSeq = 0;
  #stats: JournalStats = { lost: 0, damaged: 0, tornBytes: 0 };
  /** Segments on disk, oldest first, by their first number. */
  #firstSeqs: number[] = [];
  #newestWholeBytes = 0;
  /** False when segments are there and cannot be read: nothing may be written over them. */
  #diskUsable = true;

  private constructor(options: JournalOptions) {
    this.#options = options;
    this.#appender = new Appender({
      target: (seq, current) => this.#target(seq, current),
      sync: true,
      maxPendingBytes: 2 * (options.segmentBytes ?? segmentBytes),
      retryMs: options.retryMs ?? retryMs,
      onTrouble: (reason) =>
        options.onTrouble(
          reason === null ? null : `events cannot be stored in ${options.folder}: ${reason}`,
        ),
    });
  }

  /**
   * Opens the journal: numbers go on after the newest record found, a torn tail is dropped. Never
   * rejects; where the segments cannot be read the journal lives in memory until the next open.
   */
  static async open(options: JournalOptions): Promise<Journal> {
    const journal = new Journal(options);
    try {
      await journal.#load();
    } catch (error) {
      journal.#diskUsable = false;
      options.onTrouble(
        `events in ${options.folder} cannot be read (${errnoOf(error)}); they are not stored ` +
          'until the agent is started again',
      );
    }
    return journal;
  }

  /** Number of the newest record; 0 where there is none. */
  get lastSeq(): number {
    return this.#lastSeq;
  }

  /** Adds a record: at once for queries and listeners (which must not throw), soon on disk. */
  append(entry: JournalEntry): EventRecord {
    const record: EventRecord = {
      seq: ++this.#lastSeq,
      wallMs: this.#options.wallMs(),
      bootMs: this.#options.bootMs(),
      node: this.#options.node,
      module: entry.module ?? null,
      kind: entry.kind,
      text: entry.text.slice(0, maxTextChars),
      data: boundData(entry.data ?? {}),
    };
    this.#remember(record);
    const json = JSON.stringify(record);
    if (this.#diskUsable) this.#appender.push(record.seq, `${checksum(json)} ${json}\n`);
    for (const listener of this.#listeners) listener(record);
    return record;
  }

  /** Records with a greater number than `after`, of one module or all; the newest `limit`, oldest first. */
  query(options: {
    readonly after: number;
    readonly limit: number;
    readonly module: string | null;
  }): readonly EventRecord[] {
    const { after, limit, module } = options;
    const found: EventRecord[] = [];
    for (let i = this.#ring.length - 1; i >= 0 && found.length < limit; i--) {
      const record = this.#ring[i];
      if (record === undefined || record.seq <= after) break;
      if (module === null || record.module === module) found.push(record);
    }
    return found.reverse();
  }

  /** Calls the listener for each record from now on; the function returned ends that. */
  onEvent(listener: (event: EventRecord) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  stats(): JournalStats {
    return { ...this.#stats, lost: this.#stats.lost + this.#appender.lost() };
  }

  /** Resolves when all records so far are durable (true) or could not be stored now (false). */
  flush(): Promise<boolean> {
    return this.#appender.flush();
  }

  close(): Promise<void> {
    return this.#appender.close();
  }

  #remember(record: EventRecord): void {
    this.#ring.push(record);
    const most = this.#options.ringRecords ?? ringRecords;
    // Cut in one go now and then rather than shift an array on each record.
    if (this.#ring.length >= 2 * most) this.#ring = this.#ring.slice(-most);
  }

  async #load(): Promise<void> {
    const firstSeqs = await this.#listSegments();
    const newest = firstSeqs.at(-1);
    for (const first of firstSeqs.slice(-readSegments)) {
      const bytes = await readFile(this.#segmentPath(first));
      const read = readSegment(bytes);
      for (const record of read.records) {
        if (record.seq <= this.#lastSeq) {
          this.#count({ damaged: 1 });
          continue;
        }
        const gap = record.seq - this.#lastSeq - 1;
        if (this.#lastSeq > 0) this.#count({ lost: gap });
        this.#lastSeq = record.seq;
        this.#remember(record);
      }
      const tail = bytes.length - read.wholeBytes;
      this.#count({ damaged: read.damaged });
      if (first === newest) this.#count({ tornBytes: tail });
      else if (tail > 0) this.#count({ damaged: 1 });
      this.#newestWholeBytes = read.wholeBytes;
    }
    this.#ring = this.#ring.slice(-(this.#options.ringRecords ?? ringRecords));
    this.#firstSeqs = firstSeqs;
  }

  #count(more: Partial<JournalStats>): void {
    const { lost, damaged, tornBytes } = this.#stats;
    this.#stats = {
      lost: lost + (more.lost ?? 0),
      damaged: damaged + (more.damaged ?? 0),
      tornBytes: tornBytes + (more.tornBytes ?? 0),
    };
  }

  /** The segment that takes the record `seq`: the newest one until it is full, then a new one. */
  async #target(seq: number, current: AppendTarget | null): Promise<AppendTarget> {
    const most = this.#options.segmentBytes ?? segmentBytes;
    if (current !== null) {
      this.#newestWholeBytes = current.size;
      if (current.size < most) return current;
      await current.handle.close();
    }
    await mkdir(this.#options.folder, { recursive: true, mode: 0o750 });
    const newest = this.#firstSeqs.at(-1);
    if (newest !== undefined && this.#newestWholeBytes < most) {
      const handle = await open(this.#segmentPath(newest), 'r+');
      // What lies beyond the last whole line is a torn tail.
      await handle.truncate(this.#newestWholeBytes);
      return { handle, size: this.#newestWholeBytes };
    }
    const handle = await open(this.#segmentPath(seq), 'w', 0o640);
    await syncDirectory(this.#options.folder);
    this.#firstSeqs.push(seq);
    this.#newestWholeBytes = 0;
    while (this.#firstSeqs.length > (this.#options.segments ?? segments)) {
      await rm(this.#segmentPath(this.#firstSeqs[0] ?? 0), { force: true });
      this.#firstSeqs.shift();
    }
    return { handle, size: 0 };
  }

  async #listSegments(): Promise<number[]> {
    let names: string[];
    try {
      names = await readdir(this.#options.folder);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
    return names
      .map((name) => segmentSyntax.exec(name)?.[1])
      .filter((digits) => digits !== undefined)
      .map(Number)
      .sort((a, b) => a - b);
  }

  #segmentPath(firstSeq: number): string {
    return join(this.#options.folder, `events-${String(firstSeq).padStart(12, '0')}.log`);
  }
}

/** The records of a segment; wholeBytes ends behind the last good line. */
function readSegment(bytes: Buffer): {
  records: EventRecord[];
  damaged: number;
  wholeBytes: number;
} {
  const records: EventRecord[] = [];
  let damaged = 0;
  let wholeBytes = 0;
  let badSinceWhole = 0;
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(0x0a, at);
    if (end < 0) break;
    const record = readLine(bytes.toString('utf8', at, end));
    at = end + 1;
    if (record === null) {
      badSinceWhole++;
      continue;
    }
    records.push(record);
    damaged += badSinceWhole;
    badSinceWhole = 0;
    wholeBytes = at;
  }
  return { records, damaged, wholeBytes };
}

function readLine(line: string): EventRecord | null {
  const json = line.slice(9);
  if (line[8] !== ' ' || line.slice(0, 8) !== checksum(json)) return null;
  // The checksum says that these are the bytes we wrote, so they are a record.
  return JSON.parse(json) as EventRecord;
}

/** Data that would be too large, or that JSON cannot say, is replaced by a word of why. */
function boundData(data: EventRecord['data']): EventRecord['data'] {
  try {
    return JSON.stringify(data).length <= maxDataChars ? data : { left_out: 'too large' };
  } catch {
    return { left_out: 'not expressible in JSON' };
  }
}

function checksum(json: string): string {
  return crc32(json).toString(16).padStart(8, '0');
}
