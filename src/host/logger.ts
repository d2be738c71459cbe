import { mkdir, open, rename, stat } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { errnoOf } from '../module/durable.ts';
import { Appender, type AppendTarget } from './appender.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

export interface LoggerOptions {
  /** Lines below this level are not written. */
  readonly level: LogLevel;
  /** File that gets the lines, with its rotated forms `.1` to `.4`; null for none. */
  readonly file: string | null;
  /** Where lines go besides the file: stderr of the agent, null for none. */
  readonly stream:
    | (Pick<NodeJS.WritableStream, 'write'> & { readonly writableLength?: number })
    | null;
  /** True when the stream is read by journald: priority in front, no time of our own. */
  readonly journald: boolean;
  wallMs(): number;
  /** A clock that never jumps, for the rate limit. */
  nowMs(): number;
  /** A sentence while the file cannot be written, null when it can again. */
  onTrouble?(message: string | null): void;
  readonly fileBytes?: number;
  readonly files?: number;
}

/** A logger; children add their fields to each line and share everything else. */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  child(fields: LogFields): Logger;
  /** The last lines, oldest first. */
  tail(lines: number): readonly string[];
  /** Lines left out by the rate limit, lost because the disk or the stream took none. */
  stats(): { readonly suppressed: number; readonly lost: number };
  setLevel(level: LogLevel): void;
  flush(): Promise<boolean>;
  close(): Promise<void>;
}

const ranks: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };
/** sd-daemon(3) priorities. */
const priorities: Readonly<Record<LogLevel, number>> = { debug: 7, info: 6, warn: 4, error: 3 };
const fileBytes = 8 * 1024 * 1024;
const files = 4;
const tailLines = 1000;
const maxValueChars = 1000;
/** A stream that a stopped reader leaves full costs lines, not memory. */
const maxStreamBytes = 1024 * 1024;
/** The same message (its text without the fields) is written this often per window. */
const perWindow = 20;
const windowMs = 10_000;
const maxMessages = 1000;

/**
 * Makes a logger of one-line records `time=… level=… msg="…" key=value` (logfmt). It never blocks and
 * never throws: lines go to the file in the background.
 */
export function createLogger(options: LoggerOptions): Logger {
  const sink = new Sink(options);
  const make = (base: LogFields): Logger => {
    const at = (level: LogLevel) => (message: string, fields?: LogFields) =>
      sink.write(level, message, fields === undefined ? base : { ...base, ...fields });
    return {
      debug: at('debug'),
      info: at('info'),
      warn: at('warn'),
      error: at('error'),
      child: (fields) => make({ ...base, ...fields }),
      tail: (lines) => sink.tail(lines),
      stats: () => sink.stats(),
      setLevel: (level) => sink.setLevel(level),
      flush: () => sink.flush(),
      close: () => sink.close(),
    };
  };
  return make({});
}

class Sink {
  readonly #options: LoggerOptions;
  readonly #appender: Appender | null;
  readonly #rates = new Map<string, { sinceMs: number; count: number }>();
  #recent: string[];
  #rank: number;
  #suppressed = 0;
  #lost = 0;

  constructor(options: LoggerOptions) {
    this.#options = options;
    this.#rank = ranks[options.level];
    const { file } = options;
    this.#recent = file === null ? [] : lastLines(file);
    this.#appender =
      file === null
        ? null
        : new Appender({
            target: (_, current) => this.#target(file, current),
            sync: false,
            maxPendingBytes: 1024 * 1024,
            retryMs: 1000,
            onTrouble: (reason) =>
              options.onTrouble?.(reason === null ? null : `${file} cannot be written: ${reason}`),
          });
  }

  write(level: LogLevel, message: string, fields: LogFields): void {
    if (ranks[level] < this.#rank) return;
    const before = this.#admit(`${level} ${message}`);
    if (before === null) return;
    const all = before > 0 ? { ...fields, suppressed: before } : fields;
    const text = `level=${level} msg=${quote(message)}${pairs(all)}`;
    const line = `time=${new Date(this.#options.wallMs()).toISOString()} ${text}`;
    this.#recent.push(line);
    if (this.#recent.length >= 2 * tailLines) this.#recent = this.#recent.slice(-tailLines);
    this.#appender?.push(0, `${line}\n`);
    const { stream, journald } = this.#options;
    if (stream === null) return;
    if ((stream.writableLength ?? 0) > maxStreamBytes) this.#lost++;
    else stream.write(journald ? `<${priorities[level]}>${text}\n` : `${line}\n`);
  }

  /** How many like it were left out since the last one written; null when this is one of them. */
  #admit(key: string): number | null {
    const now = this.#options.nowMs();
    const rate = this.#rates.get(key);
    if (rate === undefined || now - rate.sinceMs >= windowMs) {
      this.#rates.delete(key);
      if (this.#rates.size >= maxMessages) {
        const oldest = this.#rates.keys().next().value;
        if (oldest !== undefined) this.#rates.delete(oldest);
      }
      this.#rates.set(key, { sinceMs: now, count: 1 });
      return rate === undefined ? 0 : Math.max(0, rate.count - perWindow);
    }
    rate.count++;
    if (rate.count <= perWindow) return 0;
    this.#suppressed++;
    return null;
  }

  async #target(file: string, current: AppendTarget | null): Promise<AppendTarget> {
    const most = this.#options.fileBytes ?? fileBytes;
    if (current !== null) {
      if (current.size < most) return current;
      await current.handle.close();
    }
    await mkdir(dirname(file), { recursive: true, mode: 0o750 });
    const size = await stat(file).then(
      (info) => info.size,
      () => 0,
    );
    if (size >= most) {
      for (let n = this.#options.files ?? files; n > 0; n--) {
        await renameIfThere(n === 1 ? file : `${file}.${n - 1}`, `${file}.${n}`);
      }
    }
    const handle = await open(file, size >= most || size === 0 ? 'w' : 'r+', 0o640);
    return { handle, size: size >= most ? 0 : size };
  }

  tail(lines: number): readonly string[] {
    return this.#recent.slice(-Math.min(lines, tailLines));
  }

  stats(): { suppressed: number; lost: number } {
    return { suppressed: this.#suppressed, lost: this.#lost + (this.#appender?.lost() ?? 0) };
  }

  setLevel(level: LogLevel): void {
    this.#rank = ranks[level];
  }

  flush(): Promise<boolean> {
    return this.#appender?.flush() ?? Promise.resolve(true);
  }

  async close(): Promise<void> {
    await this.#appender?.close();
  }
}

async function renameIfThere(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}

/** What the file ends with, so that `holdfast log` shows what was before a restart. */
function lastLines(file: string): string[] {
  try {
    const text = readFileSync(file, 'utf8').trimEnd();
    return text === '' ? [] : text.split('\n').slice(-tailLines);
  } catch {
    return [];
  }
}

function pairs(fields: LogFields): string {
  let text = '';
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    text += ` ${key}=${typeof value === 'string' ? quote(value) : String(value)}`;
  }
  return text;
}

/** As it is where it is one plain word, else in quotes with everything but printable escaped. */
function quote(value: string): string {
  const cut = value.length > maxValueChars ? `${value.slice(0, maxValueChars)}…` : value;
  return /^[\w./:@%+,-]+$/.test(cut) ? cut : JSON.stringify(cut);
}
