/** log, events, why, timing, version. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import type { AgentClient } from '../../api/client.ts';
import { mirrorProfiles } from '../../core/mirror-timing.ts';
import { HoldfastError } from '../../errors.ts';
import { type Explained, explainRefusal } from '../../errors/explain.ts';
import type { EventRecord, PairStatus, TimingRow } from '../../host/face.ts';
import { version } from '../../version.ts';
import { newLines } from '../follow.ts';
import { moduleLine, table, timestamp } from '../format.ts';
import { pairRows } from '../pair-text.ts';
import {
  act,
  chosenModule,
  type CommonOptions,
  fromNodes,
  oneAgent,
  onNodes,
  printJson,
  type Run,
  tellFailure,
  wholeNumber,
  withJson,
  withModule,
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
        const [{ state, readiness, pair }, reasons] = await Promise.all([
          client.module(name),
          client.why(name),
        ]);
        const explained = reasons.map((text) => explainRefusal(text, name));
        return { name, state, readiness, why: reasons, explained, pair };
      },
      (module) =>
        moduleLine({ ...module, why: [] }, run.io.color) +
        module.why.map((text, at) => reasonText(text, module.explained[at] ?? null)).join('') +
        factsText(module.pair),
    );
  });
  timingCommand(program, run);
  versionCommand(program, run);
}

/** A reason, where it is known with its code and the next step. */
function reasonText(text: string, explained: Explained | null): string {
  if (explained === null) return `  ${text}\n`;
  return `  ${text} [${explained.code}]\n    hint: ${explained.hint}\n`;
}

/** What decisions are made by, below the reasons. */
function factsText(pair: PairStatus | null): string {
  if (pair === null) return '';
  return pairRows(pair)
    .map(([name, text]) => `  (${name}: ${text})\n`)
    .join('');
}

interface TimingOptions extends CommonOptions {
  readonly profile?: string;
}

const profiles = Object.keys(mirrorProfiles) as readonly (keyof typeof mirrorProfiles)[];

function timingCommand(program: Command, run: Run): void {
  const command = withModule(
    program
      .command('timing')
      .description(
        'print the deadlines in force, of the cluster and of its mirrors, and what each is for',
      ),
    'only those of this module',
  ).option('--profile <name>', `those that a mirror would have here: ${profiles.join(', ')}`);
  act(run, command, async (options: TimingOptions, argument) => {
    const profile = profiles.find((name) => name === options.profile);
    if (options.profile !== undefined && profile === undefined) {
      const expected = `one of ${profiles.join(', ')}`;
      const values = { value: options.profile, expected, command: 'timing' };
      throw new HoldfastError('HF-CLI-005', values);
    }
    const query = { module: options.module ?? argument ?? null, profile: profile ?? null };
    await onNodes(run, options, (client) => client.timing(query), timingText);
  });
}

/** One table for each chain, under its name where there are several. */
function timingText(rows: readonly TimingRow[]): string {
  const head = ['DEADLINE', 'MS', 'MEANING'];
  const cells = (of: string) =>
    rows.filter((row) => row.of === of).map(({ name, ms, meaning }) => [name, String(ms), meaning]);
  const chains = [...new Set(rows.map(({ of }) => of))];
  const [only] = chains;
  if (only !== undefined && chains.length === 1) return table(head, cells(only), false);
  return chains.map((of) => `${of}\n${table(head, cells(of), false, '  ')}`).join('\n');
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
      .description(
        'print the journal: transitions, refusals, alerts, commands; of several nodes in the order of time',
      ),
    'only those of this module',
  )
    .option('-n, --lines <count>', 'so many of the newest', '50')
    .option('-f, --follow', 'go on printing new ones until Ctrl-C');
  act(run, command, async (options: LinesOptions, argument) => {
    const limit = wholeNumber('events', options.lines, 1, maxEvents);
    const module = options.module ?? argument ?? null;
    const read = (client: AgentClient) => client.events({ limit, module });
    if (options.follow !== true) {
      await mergedEvents(run, options, read, limit);
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

/**
 * The newest events of the nodes asked for, in the order of time. A node that does not answer is told on
 * stderr and hides nothing of the others.
 */
async function mergedEvents(
  run: Run,
  options: LinesOptions,
  read: (client: AgentClient) => Promise<readonly EventRecord[]>,
  limit: number,
): Promise<void> {
  const { io } = run;
  const answers = await fromNodes(run, options, read);
  const lists = answers.flatMap(({ result }) => (result === undefined ? [] : [result]));
  for (const { failure } of answers) if (failure !== null) tellFailure(run, options, failure.cause);
  const events = merge(lists).slice(-limit);
  if (options.json === true) printJson(io, events);
  else io.out(events.map(eventLine).join(''));
}

/** By wall time; but events of one node stay in its order, though its clock was set back. */
function merge(lists: readonly (readonly EventRecord[])[]): readonly EventRecord[] {
  const stamped = lists.flatMap((events) => {
    let at = 0;
    return events.map((event) => {
      at = Math.max(at, event.wallMs);
      return { event, at };
    });
  });
  return stamped.toSorted((a, b) => a.at - b.at).map(({ event }) => event);
}

function versionCommand(program: Command, run: Run): void {
  const command = program.command('version').description('print the version of this program');
  act(run, withJson(command), async (options: CommonOptions) => {
    if (options.json === true) printJson(run.io, { version, node: process.versions.node });
    else run.io.out(`holdfast ${version}, Node ${process.versions.node}\n`);
  });
}
