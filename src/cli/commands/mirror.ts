/** prim, second, verify: orders that all mirrors have. */
import { constants } from 'node:os';
import type { Command } from 'commander';
import type { AgentClient } from '../../api/client.ts';
import { HoldfastError } from '../../errors.ts';
import type { SecondWay, VerifyStatus } from '../../host/face.ts';
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
  withNodes,
} from '../run.ts';

interface PrimOptions extends CommonOptions {
  readonly alone?: boolean;
  readonly force?: boolean;
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
    'of a mirror run by hand: confirm that it is to go on without the other server: what is written is on this one only',
  );
  prim.option(
    '--force',
    'of a mirror run by hand: also with a copy that is known to be older, was being brought up to date, or is a distant one: what it lacks is lost',
  );
  act(run, prim, async (options: PrimOptions, argument) => {
    const client = oneAgent(run, options, 'prim');
    const name = await chosenModule(client, 'prim', options.module ?? argument);
    const option = options.force === true ? 'force' : options.alone === true ? 'alone' : null;
    if (option !== null && (await client.module(name)).pair !== null) {
      throw new HoldfastError('HF-CLI-013', { option, module: name });
    }
    const module = await client.prim(name, options.alone === true, options.force === true);
    if (options.json === true) printJson(run.io, module);
    else run.io.out(moduleLine(module, run.io.color));
  });
  const second = withNodes(
    program.command('second').description('make this server the secondary of a mirror'),
  )
    .argument(
      '[way]',
      'fullsync: its copy is none, all comes from the primary; discard: what it took while it was alone is taken back; what goes is kept in the quarantine',
    )
    .argument('[module]', 'the module; may be left out where the node has only one')
    .option('-m, --module <module>', 'the same as the argument');
  act(run, second, async (options: CommonOptions, ...words) => {
    const { way, argument } = secondWords(words);
    await onNodes(
      run,
      options,
      async (client) =>
        client.second(await chosenModule(client, 'second', options.module ?? argument), way),
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

/** The way comes first, and may be left out. HF-CLI-005 for another one. */
function secondWords([first, second]: readonly (string | undefined)[]): {
  readonly way: SecondWay;
  readonly argument: string | undefined;
} {
  if (first === 'fullsync' || first === 'discard') return { way: first, argument: second };
  if (second === undefined) return { way: 'plain', argument: first };
  const values = { value: first ?? '', expected: 'fullsync or discard', command: 'second' };
  throw new HoldfastError('HF-CLI-005', values);
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
