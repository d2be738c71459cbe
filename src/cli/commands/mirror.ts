/** prim, second, verify: a mirror run by hand. */
import { constants } from 'node:os';
import type { Command } from 'commander';
import type { AgentClient } from '../../api/client.ts';
import type { VerifyStatus } from '../../host/face.ts';
import { exitCodes } from '../exit.ts';
import { duration, moduleLine } from '../format.ts';
import {
  act,
  chosenModule,
  type CommonOptions,
  oneAgent,
  onNodes,
  printJson,
  type Run,
  withModule,
} from '../run.ts';

interface PrimOptions extends CommonOptions {
  readonly alone?: boolean;
}

/** How often a comparison says how far it is. */
const progressMs = 1000;
/** Differences that are printed; --json has up to 1000. */
const printedMax = 50;

/** Adds the commands that are for mirrors alone. */
export function mirrorCommands(program: Command, run: Run): void {
  const prim = withModule(
    program.command('prim').description('make this server the primary of a mirror'),
  ).option(
    '--alone',
    'confirm that it is to go on without the other server: what is written is on this one only',
  );
  act(run, prim, async (options: PrimOptions, argument) => {
    const client = oneAgent(run, options, 'prim');
    const name = await chosenModule(client, 'prim', options.module ?? argument);
    const module = await client.prim(name, options.alone === true);
    if (options.json === true) printJson(run.io, module);
    else run.io.out(moduleLine(module, run.io.color));
  });
  const second = withModule(
    program.command('second').description('make this server the secondary of a mirror'),
  );
  act(run, second, async (options: CommonOptions, argument) => {
    await onNodes(
      run,
      options,
      async (client) =>
        client.second(await chosenModule(client, 'second', options.module ?? argument)),
      (module) => moduleLine(module, run.io.color),
    );
  });
  const verify = withModule(
    program
      .command('verify')
      .description('compare both servers of a mirror while its application runs; on the primary'),
  );
  act(run, verify, async (options: CommonOptions, argument) => {
    const client = oneAgent(run, options, 'verify');
    const name = await chosenModule(client, 'verify', options.module ?? argument);
    const started = run.io.nowMs();
    const found = await withProgress(run, options, client, name);
    if (found.differing > 0) run.exitCode = exitCodes.differs;
    if (options.json === true) printJson(run.io, found);
    else run.io.out(verifyText(name, found, run.io.nowMs() - started));
  });
}

/** Shows on a terminal how far it is. */
async function withProgress(
  run: Run,
  options: CommonOptions,
  client: AgentClient,
  name: string,
): Promise<VerifyStatus> {
  if (!run.io.tty || options.json === true) return client.verify(name);
  const look = async (): Promise<void> => {
    // A look that fails says nothing of the comparison.
    const status = await client.module(name).catch(() => null);
    const verify = status?.replica?.verify;
    if (verify?.running === true) run.io.err(`\r${figuresText(verify)}\x1b[K`);
  };
  const timer = setInterval(() => void look(), progressMs);
  try {
    return await client.verify(name);
  } finally {
    clearInterval(timer);
    run.io.err('\r\x1b[K');
  }
}

function figuresText({ figures, differing }: VerifyStatus): string {
  const all = Object.entries(figures).map(([key, value]) => `${key} ${value}`);
  return [...all, `differences ${differing}`].join(', ');
}

function verifyText(name: string, found: VerifyStatus, tookMs: number): string {
  const lines = found.differences
    .slice(0, printedMax)
    .map((one) => `  ${differenceText(one)}\n`)
    .join('');
  const more = found.differing - Math.min(found.differing, printedMax);
  const rest = more > 0 ? `  and ${more} more\n` : '';
  const outcome = found.differing === 0 ? 'equal' : `${found.differing} differences`;
  return `${lines}${rest}${name}: ${outcome} (${figuresText(found)}; ${duration(tookMs)})\n`;
}

function errnoName(errno: number): string {
  const found = Object.entries(constants.errno).find(([, value]) => value === errno);
  return found?.[0] ?? `errno ${errno}`;
}

/** `/srv/data/f  data from byte 65536 on`. */
function differenceText(one: Readonly<Record<string, string>>): string {
  const { path = `file ${one['file'] ?? '?'}`, what = '', offset = '0', errno = '0' } = one;
  const from = what === 'data' ? ` from byte ${offset} on` : '';
  const error = errno === '0' ? '' : ` (${errnoName(Number(errno))})`;
  return `${path}  ${what}${from}${error}`;
}
