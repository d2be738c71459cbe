/**
 * What all commands share: options, the agent of this node or of the nodes named by -H, the choice of
 * the module, and output as text or as JSON.
 */
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import type { AgentClient } from '../api/client.ts';
import { HoldfastError } from '../errors.ts';
import { errorLines, exitCodeOf, jsonOf, recordsOf, reportError } from './exit.ts';
import type { Io } from './io.ts';

/** One run of `holdfast`: the world, and the exit code that will be returned. */
export interface Run {
  readonly io: Io;
  exitCode: number;
}

export interface CommonOptions {
  readonly json?: boolean;
  /** `-H`: a node, several with commas, or `*`. */
  readonly host?: string;
  readonly module?: string;
}

/** Adds `--json`. */
export function withJson(command: Command): Command {
  return command.option('--json', 'print JSON');
}

/** Adds `--json` and `-H`. */
export function withNodes(command: Command): Command {
  return withJson(command).option(
    '-H, --host <nodes>',
    'the node to ask instead of this one; several with commas, "*" for all',
  );
}

/** Adds the argument and the option that name a module, beside `--json` and `-H`. */
export function withModule(
  command: Command,
  text = 'the module; may be left out where the node has only one',
): Command {
  return withNodes(command)
    .argument('[module]', text)
    .option('-m, --module <module>', 'the same as the argument');
}

export function printJson(io: Io, value: unknown): void {
  io.out(`${JSON.stringify(value, null, 2)}\n`);
}

/** The module that is meant: by name, or the only one of the node. Throws HF-CLI-001, -002. */
export async function chosenModule(
  client: AgentClient,
  command: string,
  given: string | undefined,
): Promise<string> {
  if (given !== undefined) return given;
  const modules = await client.modules();
  const [only] = modules;
  if (only === undefined) throw new HoldfastError('HF-CLI-002');
  if (modules.length === 1) return only.name;
  const names = modules.map((module) => module.name).join(', ');
  throw new HoldfastError('HF-CLI-001', { modules: names, command });
}

/** The nodes that -H names; null where the command is for this node, a name where it is for one. */
async function namedNodes(
  client: AgentClient,
  host: string | undefined,
): Promise<readonly string[] | string | null> {
  if (host === undefined) return null;
  if (host === '*') return (await client.clusterStatus()).nodes.map((node) => node.node);
  const names = host.split(',').map((name) => name.trim());
  return names.length === 1 ? (names[0] ?? '') : names;
}

/** The agent of this node, or of the one node that -H names. */
export function oneAgent(run: Run, options: CommonOptions, command: string): AgentClient {
  const client = run.io.connect();
  if (options.host === undefined) return client;
  if (options.host === '*' || options.host.includes(',')) {
    throw new HoldfastError('HF-CLI-008', { command });
  }
  return client.onNode(options.host);
}

/**
 * Runs `call` on this node or on those of -H, all at once, and prints the results: `show` as text, or
 * with --json the value itself, for several nodes a list of {node, result} or {node, error}. One node
 * that fails does not hide the others; the exit code is then that of the first failure.
 */
export async function onNodes<T>(
  run: Run,
  options: CommonOptions,
  call: (client: AgentClient) => Promise<T>,
  show: (value: T) => string,
): Promise<void> {
  const { io } = run;
  const answers = await fromNodes(run, options, call);
  const [only] = answers;
  if (only !== undefined && !isSeveral(options)) {
    if (options.json === true) printJson(io, only.result);
    else io.out(show(only.result as T));
    return;
  }
  for (const { failure } of answers) {
    if (failure !== null && run.exitCode === 0) run.exitCode = exitCodeOf(failure.cause);
  }
  if (options.json === true) {
    const list = answers.map(({ node, result, failure }) =>
      failure === null ? { node, result } : { node, ...jsonOf(failure.cause) },
    );
    printJson(io, list);
    return;
  }
  for (const { node, result, failure } of answers) {
    const text =
      failure === null ? show(result as T) : recordsOf(failure.cause).map(errorLines).join('');
    const lines = text.trimEnd().split('\n');
    io.out(`${node}:\n${lines.map((line) => (line === '' ? '' : `  ${line}`)).join('\n')}\n`);
  }
}

/** What one of the nodes of -H answered; exactly one of result and failure. */
export interface NodeAnswer<T> {
  /** Empty: this one. */
  readonly node: string;
  readonly result: T | undefined;
  readonly failure: { readonly cause: unknown } | null;
}

const isSeveral = ({ host }: CommonOptions): boolean =>
  host === '*' || host?.includes(',') === true;

/** Runs `call` on this node or on those of -H, all at once. Of a single node a failure is thrown. */
export async function fromNodes<T>(
  run: Run,
  options: CommonOptions,
  call: (client: AgentClient) => Promise<T>,
): Promise<readonly NodeAnswer<T>[]> {
  const client = run.io.connect();
  const nodes = await namedNodes(client, options.host);
  if (nodes === null || typeof nodes === 'string') {
    const result = await call(nodes === null ? client : client.onNode(nodes));
    return [{ node: nodes ?? '', result, failure: null }];
  }
  return Promise.all(
    nodes.map(async (node) => {
      try {
        return { node, result: await call(client.onNode(node)), failure: null };
      } catch (cause) {
        return { node, result: undefined, failure: { cause } };
      }
    }),
  );
}

/** Tells a failure of one of several nodes; the exit code is that of the first one. */
export function tellFailure(run: Run, options: CommonOptions, cause: unknown): void {
  reportError(run.io, cause, options.json === true);
  if (run.exitCode === 0) run.exitCode = exitCodeOf(cause);
}

/**
 * Makes `handler` the command's action. An error is told on stderr and becomes the exit code; `codeOf`
 * is for the command that has exit codes of its own.
 */
export function act<O extends CommonOptions>(
  run: Run,
  command: Command,
  handler: (options: O, ...args: readonly (string | undefined)[]) => Promise<void>,
  codeOf: (error: unknown, options: O) => number = exitCodeOf,
): Command {
  return command.action(async () => {
    const options = command.opts<O>();
    try {
      await handler(options, ...(command.processedArgs as (string | undefined)[]));
    } catch (error) {
      reportError(run.io, explained(run.io, error), options.json === true);
      run.exitCode = codeOf(error, options);
    }
  });
}

/** No agent answers: on a server that was never set up there is more to say than that. */
function explained(io: Io, error: unknown): unknown {
  const isAway = error instanceof HoldfastError && error.code === 'HF-API-010';
  const file = io.paths.clusterXml;
  return isAway && !existsSync(file) ? new HoldfastError('HF-CLUSTER-002', { file }) : error;
}

/** A whole number of the command line within bounds. Throws HF-CLI-005. */
export function wholeNumber(command: string, value: string, low: number, high: number): number {
  const number = /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN;
  if (number >= low && number <= high) return number;
  throw new HoldfastError('HF-CLI-005', {
    value,
    expected: `a whole number from ${low} to ${high}`,
    command,
  });
}
