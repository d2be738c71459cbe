/** log, events, why, timing, version. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import type { AgentClient } from '../../api/client.ts';
import type { EventRecord } from '../../host/face.ts';
import { version } from '../../version.ts';
import { newLines } from '../follow.ts';
import { moduleLine, table, timestamp } from '../format.ts';
import {
  act,
  chosenModule,
  type CommonOptions,
  oneAgent,
  onNodes,
  printJson,
  type Run,
  wholeNumber,
  withJson,
  withModule,
  withNodes,
} from '../run.ts';

interface LinesOptions extends CommonOptions {
  readonly lines: string;
  readonly follow?: boolean;
}

/** Bounds that the agent has, too. */
const maxLines = 10_000;
const maxEvents = 1000;
/** Between two looks at a log that is followed, and how many lines are compared. */
const followMs = 1000;
const followLines = 1000;

/** Adds the commands that only look. */
export function observeCommands(program: Command, run: Run): void {
  logCommand(program, run);
  eventsCommand(program, run);
  const why = program
    .command('why')
    .description('say why a module is where it is: refusals and conditions, newest first');
  act(run, withModule(why), async (options: CommonOptions, argument) => {
    await onNodes(
      run,
      options,
      async (client) => {
        const name = await chosenModule(client, 'why', options.module ?? argument);
        const [{ state, readiness }, reasons] = await Promise.all([
          client.module(name),
          client.why(name),
        ]);
        return { name, state, readiness, why: reasons };
      },
      (module) => moduleLine(module, run.io.color),
    );
  });
  const timing = program
    .command('timing')
    .description('print the deadlines in force and what each is for');
  act(run, withNodes(timing), async (options: CommonOptions) => {
    await onNodes(
      run,
      options,
      (client) => client.timing(),
      (rows) =>
        table(
          ['DEADLINE', 'MS', 'MEANING'],
          rows.map((row) => [row.name, String(row.ms), row.meaning]),
          false,
        ),
    );
  });
  versionCommand(program, run);
}

function lines(texts: readonly string[]): string {
  return texts.map((text) => `${text}\n`).join('');
}

function logCommand(program: Command, run: Run): void {
  const command = withModule(
    program
      .command('log')
      .description("print what a module's scripts wrote; without a module, the log of the agent"),
    'the module',
  )
    .option('-n, --lines <count>', 'so many of the last lines', '100')
    .option('-f, --follow', 'go on printing new lines until Ctrl-C');
  act(run, command, async (options: LinesOptions, argument) => {
    const count = wholeNumber('log', options.lines, 1, maxLines);
    const module = options.module ?? argument ?? null;
    if (options.follow === true) await followLog(run, options, module, count);
    else await onNodes(run, options, (client) => client.log(module, count), lines);
  });
}

async function followLog(
  run: Run,
  options: LinesOptions,
  module: string | null,
  count: number,
): Promise<void> {
  const client = oneAgent(run, options, 'log -f');
  const { io } = run;
  const signal = io.untilInterrupt();
  let seen = await client.log(module, Math.max(count, followLines));
  const print = (texts: readonly string[]): void =>
    io.out(
      options.json === true ? lines(texts.map((line) => JSON.stringify({ line }))) : lines(texts),
    );
  print(seen.slice(-count));
  while (!signal.aborted) {
    await delay(followMs, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    const now = await client.log(module, followLines);
    print(newLines(seen, now));
    seen = now;
  }
}

function eventLine(event: EventRecord): string {
  const about = event.module === null ? event.node : `${event.node}/${event.module}`;
  return `${timestamp(event.wallMs)}  ${about}  ${event.kind}  ${event.text}\n`;
}

function eventsCommand(program: Command, run: Run): void {
  const command = withModule(
    program
      .command('events')
      .description('print the journal: transitions, refusals, alerts, commands'),
    'only those of this module',
  )
    .option('-n, --lines <count>', 'so many of the newest', '50')
    .option('-f, --follow', 'go on printing new ones until Ctrl-C');
  act(run, command, async (options: LinesOptions, argument) => {
    const limit = wholeNumber('events', options.lines, 1, maxEvents);
    const module = options.module ?? argument ?? null;
    const read = (client: AgentClient) => client.events({ limit, module });
    if (options.follow !== true) {
      await onNodes(run, options, read, (events) => events.map(eventLine).join(''));
      return;
    }
    const client = oneAgent(run, options, 'events -f');
    const signal = run.io.untilInterrupt();
    const print = (event: EventRecord): void =>
      run.io.out(options.json === true ? `${JSON.stringify(event)}\n` : eventLine(event));
    const past = await read(client);
    past.forEach(print);
    // Without a record of this module the journal may still be long: only new ones are wanted.
    const after = past.at(-1)?.seq ?? (await client.events({ limit: 1 })).at(-1)?.seq ?? 0;
    for await (const event of client.followEvents({ after, module, signal })) {
      print(event);
    }
  });
}

function versionCommand(program: Command, run: Run): void {
  const command = program.command('version').description('print the version of this program');
  act(run, withJson(command), async (options: CommonOptions) => {
    if (options.json === true) printJson(run.io, { version, node: process.versions.node });
    else run.io.out(`holdfast ${version}, Node ${process.versions.node}\n`);
  });
}
