import { createInterface } from 'node:readline';
import { type AgentClient, connectAgent } from '../api/client.ts';
import { type Paths, paths } from '../paths.ts';

/** The world as the commands see it: tests pass one of their own. */
export interface Io {
  out(text: string): void;
  err(text: string): void;
  /** Output goes to a person's terminal. */
  readonly tty: boolean;
  readonly color: boolean;
  readonly columns: number;
  /** A person sits at standard input, and sees what is told on stderr. */
  readonly canAsk: boolean;
  /** Asks on stderr; the line that was answered, empty at the end of the input. */
  ask(question: string): Promise<string>;
  readonly paths: Paths;
  /** Aborts at Ctrl-C, which from this call on no longer ends the process by itself. */
  untilInterrupt(): AbortSignal;
  nowMs(): number;
  connect(): AgentClient;
}

/** The world of this process. */
export function processIo(): Io {
  const where = paths();
  const tty = process.stdout.isTTY === true;
  // The reader of a pipe may leave early (`holdfast log | head`): that is no error of ours.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    tty,
    color: tty && (process.env['NO_COLOR'] ?? '') === '',
    columns: process.stdout.columns ?? 100,
    canAsk: process.stdin.isTTY === true && process.stderr.isTTY === true,
    ask,
    paths: where,
    untilInterrupt,
    nowMs: () => Date.now(),
    connect: () => connectAgent({ socketPath: where.agentSocket }),
  };
}

async function ask(question: string): Promise<string> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await new Promise((resolve) => {
      lines.once('close', () => resolve(''));
      lines.question(question, resolve);
    });
  } finally {
    lines.close();
  }
}

function untilInterrupt(): AbortSignal {
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  return stop.signal;
}
