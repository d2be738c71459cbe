/**
 * Power switches of servers, by the programs of the fence-agents package (or one's own that takes the same):
 * options come by standard input, one `key=value` a line, with `action=off|on|status`. `status` ends with
 * 0 where the server is on, with 2 where it is off, and with anything else where that is not known.
 * https://github.com/ClusterLabs/fence-agents/blob/main/doc/FenceAgentAPI.md
 */
import { spawn } from 'node:child_process';
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';

export interface PowerSwitch {
  /** Name of the program, or its absolute path. */
  readonly program: string;
  /** What it is given, without the action. */
  readonly options: readonly string[];
}

const searchPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const fileMax = 64 * 1024;
/** Of what an agent says; the rest is not read. */
const saidMax = 500;
const isOff = 2;

/**
 * Reads the file of one server: `agent=fence_…` and the agent's own options. It holds a password, so it
 * must be its owner's alone. Throws an Error that says what is wrong.
 */
export function readSwitch(path: string): PowerSwitch {
  let text: string;
  let fd = -1;
  try {
    fd = openSync(path, 'r');
    const { mode, uid, size } = fstatSync(fd);
    if ((mode & 0o077) !== 0 || uid !== process.getuid?.()) {
      throw new Error('it holds a password: `chown root` and `chmod 600` it');
    }
    if (size > fileMax) throw new Error('it is too large');
    text = readFileSync(fd, 'utf8');
  } catch (error) {
    throw new Error(`${path}: ${error instanceof Error ? error.message : String(error)}`);
  } finally {
    if (fd >= 0) closeSync(fd);
  }
  const lines = text.split('\n').map((line) => line.trim());
  const options = lines.filter((line) => line !== '' && !line.startsWith('#'));
  const bad = options.find((line) => !/^[A-Za-z0-9_-]+=/.test(line) || line.startsWith('action='));
  if (bad !== undefined) {
    // Not the line: it may hold a password.
    throw new Error(`${path}: line ${lines.indexOf(bad) + 1} is no key=value, or is the action`);
  }
  const agent = options.find((line) => line.startsWith('agent='));
  const program = agent?.slice('agent='.length) ?? '';
  if (!/^(\/[\w./+-]+|[\w.+-]+)$/.test(program)) {
    throw new Error(`${path}: a line agent=fence_… is missing`);
  }
  return { program, options: options.filter((line) => line !== agent) };
}

/**
 * Switches a server off, and asks whether it is. Null: it said so. Else why that is not known.
 * limitMs: of each of the two runs.
 */
export async function powerOff(target: PowerSwitch, limitMs: number): Promise<string | null> {
  const off = await run(target, 'off', limitMs);
  const status = await run(target, 'status', limitMs);
  if (status.code === isOff) return null;
  const [after, before] = [outcomeOf(status), outcomeOf(off)];
  return `${target.program}: off: ${before}; status: ${after === 'done' ? 'it is on' : after}`;
}

/** Null: the agent says that it is on. */
export async function powerOn(target: PowerSwitch, limitMs: number): Promise<string | null> {
  const outcome = outcomeOf(await run(target, 'on', limitMs));
  return outcome === 'done' ? null : `${target.program}: on: ${outcome}`;
}

interface Outcome {
  /** Null: it was ended by a signal, or did not begin. */
  readonly code: number | null;
  readonly said: string;
}

function outcomeOf({ code, said }: Outcome): string {
  if (code === 0) return 'done';
  const how = code === null ? 'no end within its time' : `exit ${code}`;
  return said === '' ? how : `${how}, ${said}`;
}

function run(target: PowerSwitch, action: string, limitMs: number): Promise<Outcome> {
  return new Promise((resolve) => {
    // A group of its own, so that what it started ends with it.
    const child = spawn(target.program, [], {
      detached: true,
      env: { PATH: searchPath, LANG: 'C' },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let said = '';
    const timer = setTimeout(() => end('no end within its time'), limitMs);
    const kill = (): void => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
      } catch {
        // It has ended.
      }
    };
    const end = (text: string): void => {
      kill();
      settle(null, text);
    };
    const settle = (code: number | null, text: string): void => {
      clearTimeout(timer);
      child.stdout.destroy();
      child.stderr.destroy();
      resolve({ code, said: (text === '' ? said.trim() : text).replaceAll(/\s+/g, ' ') });
    };
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (part: string) => {
        said = (said + part).slice(-saidMax);
      });
    }
    child.once('error', (error) => settle(null, error.message));
    child.once('exit', (code, signal) => settle(code, signal === null ? '' : `ended by ${signal}`));
    // An agent that reads nothing closes the pipe; how it ends tells the story.
    child.stdin.on('error', () => undefined);
    child.stdin.end([...target.options, `action=${action}`, ''].join('\n'));
  });
}
