/** witness join, run, list: this machine as the arbiter of clusters that it is no node of. */
import { spawn } from 'node:child_process';
import { hostname } from 'node:os';
import { type Command, Option } from 'commander';
import { type KeptRecord, keptRecords } from '../../arbiter/witness-records.ts';
import { HoldfastError } from '../../errors.ts';
import { builtFile } from '../../native/load.ts';
import { table } from '../format.ts';
import { act, type CommonOptions, printJson, type Run, withJson } from '../run.ts';

interface JoinOptions extends CommonOptions {
  readonly token: string;
  readonly name: string;
  readonly state: string;
}

interface ListOptions extends CommonOptions {
  readonly state: string;
}

interface RunOptions extends CommonOptions {
  readonly state: string;
  readonly listen: string;
}

/** Adds `witness …`. */
export function witnessCommands(program: Command, run: Run): void {
  const witness = program
    .command('witness')
    .description('make this machine a witness, by which mirrors decide who is primary');
  joinCommand(witness, run);
  runCommand(witness, run);
  listCommand(witness, run);
}

function stateOption(run: Run): Option {
  const text = 'where the witness keeps keys and records';
  return new Option('--state <folder>', text).default(
    run.io.paths.witness,
    '/var/lib/holdfast-witness',
  );
}

function joinCommand(witness: Command, run: Run): void {
  const own = hostname().replace(/\..*/, '');
  const command = withJson(
    witness.command('join').description('let this machine be a witness of a cluster'),
  )
    .argument('<address>', 'a server of the cluster, with :PORT where it is not the usual one')
    .requiredOption('--token <token>', 'what `cluster token` printed there')
    .addOption(new Option('--name <name>', 'its name').default(own, 'its host name'))
    .addOption(stateOption(run));
  act(run, command, async (options: JoinOptions, addr = '') => {
    const { witnessJoin } = await import('../../api/witness.ts');
    const { token, name, state } = options;
    const clusterId = await witnessJoin({ addr, token, name, state });
    if (options.json === true) {
      printJson(run.io, { name, clusterId, state });
      return;
    }
    run.io.out(
      `this machine is the witness ${name} of cluster ${clusterId}\n` +
        'next: start it here (`systemctl enable --now holdfast-witness`), then add to cluster.xml,\n' +
        'behind </lans>, with the address at which the servers reach this machine:\n\n' +
        `  <arbiter type="witness" name="${name}" addr="ADDRESS"/>\n`,
    );
  });
}

function runCommand(witness: Command, run: Run): void {
  const command = witness
    .command('run')
    .description('run the witness in the foreground, until Ctrl-C')
    .addOption(stateOption(run))
    .option('--listen <addr:port>', 'where it listens; [::] takes IPv4 too', '[::]:9530');
  act(run, command, async ({ state, listen }: RunOptions) => {
    const stop = run.io.untilInterrupt();
    const child = spawn(builtFile('holdfast-witness'), ['--state', state, '--listen', listen], {
      stdio: 'inherit',
    });
    const end = () => child.kill('SIGTERM');
    stop.addEventListener('abort', end);
    process.once('SIGTERM', end);
    run.exitCode = await new Promise<number>((resolve, reject) => {
      child.once('error', ({ message }) =>
        reject(new HoldfastError('HF-ARBITER-001', { reason: message })),
      );
      child.once('exit', (code) => resolve(code ?? 1));
    });
  });
}

function listCommand(witness: Command, run: Run): void {
  const command = withJson(
    witness.command('list').description('the records that this witness keeps; nodes by their ids'),
  ).addOption(stateOption(run));
  act(run, command, async ({ state, json }: ListOptions) => {
    let kept: readonly KeptRecord[];
    try {
      kept = await keptRecords(state);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new HoldfastError('HF-ARBITER-002', { folder: state, reason }, null, cause);
    }
    if (json === true) printJson(run.io, kept);
    else if (kept.length === 0) run.io.out('no records\n');
    else run.io.out(table(titles, kept.map(rowOf), run.io.color));
  });
}

const titles = ['CLUSTER', 'MODULE', 'REGISTER', 'EPOCH', 'PRIMARY', 'UP TO DATE'];

function rowOf({ clusterId, module, record }: KeptRecord): string[] {
  if (record === null) return [clusterId, module, 'damaged', '', '', ''];
  const { incarnation, epoch, primary, inSync } = record;
  return [clusterId, module, ...[incarnation, epoch, primary].map(String), inSync.join(', ')];
}
