/** `holdfast lab …`: the lab from a shell. */
import type { Command } from 'commander';
import { HoldfastError } from '../errors.ts';
import { faultCommands } from './cli-faults.ts';
import { LabCluster } from './cluster.ts';
import type { Fault } from './faults.ts';
import { defaultName, Lab, type LabSummary } from './lab.ts';

/** Where the exit code of `lab exec` goes. */
export interface ExitCode {
  exitCode: number;
}

/** Adds `lab …`. */
export function labCommands(program: Command, run: ExitCode): void {
  const lab = program
    .command('lab')
    .description('a whole cluster on this machine, to try and to test');
  upCommand(lab);
  downCommand(lab);
  listCommand(lab);
  execCommand(lab, run);
  powerCommands(lab);
  faultCommands(lab);
  onLab(lab.command('clear').description('end one fault, or all; power stays as it is'))
    .argument('[id]', 'number of the fault, as `lab list` shows it')
    .action(async (id: string | undefined, options: LabChoice) => {
      await openLab(options).heal(id === undefined ? undefined : countOf(id, 1, 1_000_000));
    });
}

export interface LabChoice {
  readonly lab?: string;
}

/** Adds the option that names the lab. */
export function onLab(command: Command): Command {
  return command.option('--lab <name>', 'the lab; may be left out where only one is up');
}

export function openLab(options: LabChoice): Lab {
  return Lab.open(options.lab);
}

/** Writes where the program's own text goes. */
export function write(command: Command, text: string): void {
  command.configureOutput().writeOut?.(text);
}

/** A number of the command line within bounds. Throws HF-LAB-009. */
export function countOf(text: string, low: number, high: number): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (value >= low && value <= high) return value;
  throw new HoldfastError('HF-LAB-009', {
    reason: `${text} is not a number from ${low} to ${high}`,
  });
}

interface UpOptions {
  readonly name: string;
  readonly hosts: string;
  readonly lans: string;
  readonly clients: string;
  readonly bare?: boolean;
}

function upCommand(lab: Command): void {
  lab
    .command('up')
    .description('build a lab that stays until `lab down`, with a cluster of all its servers')
    .option('--name <name>', 'its name', defaultName)
    .option('--hosts <number>', 'servers: s1, s2, …', '3')
    .option('--lans <number>', 'networks, 1 or 2', '1')
    .option('--clients <number>', 'client namespaces of 1000 addresses', '1')
    .option('--bare', 'hosts only: no cluster, no agents')
    .action(async (options: UpOptions, command: Command) => {
      const made = await Lab.up({
        name: options.name,
        hosts: countOf(options.hosts, 1, 64),
        lans: countOf(options.lans, 1, 2),
        clients: countOf(options.clients, 0, 9),
        persist: true,
      });
      try {
        if (options.bare !== true) await LabCluster.start(made);
      } catch (error) {
        await made.down();
        throw error;
      }
      write(command, describe(made.summary()));
    });
}

function downCommand(lab: Command): void {
  lab
    .command('down')
    .description('end a lab and everything in it; also what crashed ones left behind')
    .argument('[name]', 'the lab; may be left out where only one is up')
    .action(async (name: string | undefined, _: unknown, command: Command) => {
      const swept = await Lab.sweep();
      for (const left of swept) write(command, `${left}: left over, removed\n`);
      if (name === undefined && swept.length > 0 && Lab.list().length === 0) return;
      await Lab.open(name).down();
    });
}

function listCommand(lab: Command): void {
  lab
    .command('list')
    .description('the labs that are up, with their faults')
    .option('--json', 'print JSON')
    .action((options: { readonly json?: boolean }, command: Command) => {
      const labs = Lab.list();
      if (options.json === true) write(command, `${JSON.stringify(labs, null, 2)}\n`);
      else write(command, labs.map(describe).join('') || 'no lab is up\n');
    });
}

function describe(summary: LabSummary): string {
  const hosts = summary.hosts.map(({ name, on }) => (on ? name : `${name} (off)`));
  const faults = summary.faults.map((fault) => `  fault ${fault.id}: ${sayFault(fault)}\n`);
  return (
    `${summary.name}: ${hosts.join(', ')}; ${summary.clients.join(', ') || 'no clients'}; ` +
    `${summary.lans} network${summary.lans === 1 ? '' : 's'}; files in ${summary.dir}\n` +
    faults.join('')
  );
}

function sayFault(fault: Fault): string {
  switch (fault.kind) {
    case 'cut':
      return `nothing from ${fault.from} reaches ${fault.to} on network ${fault.lan}`;
    case 'loss':
      return `${fault.host} loses ${fault.percent} % (${fault.direction}) on network ${fault.lan}`;
    case 'relay':
      return (
        `frames of ${fault.host} (${fault.direction}) on network ${fault.lan}: ` +
        `${fault.delayMs} ms +- ${fault.jitterMs} ms later, ${fault.duplicatePercent} % twice`
      );
    case 'unplug':
      return `${fault.host} has no cable on network ${fault.lan}`;
    case 'pause':
      return `${fault.processes.length} processes of ${fault.host} are stopped`;
    case 'slow':
      return `${fault.host} has ${fault.processes.length} busy processes`;
    default:
      return fault satisfies never;
  }
}

function execCommand(lab: Command, run: ExitCode): void {
  onLab(lab.command('exec').description('run a command on a host: lab exec s1 -- holdfast status'))
    .argument('<host>', 'a server or a client namespace')
    .argument('<command...>', 'the command, after `--`')
    .action(async (host: string, argv: string[], options: LabChoice) => {
      const child = await openLab(options).host(host).spawn(argv, { stdio: 'inherit' });
      run.exitCode = await child.ended;
    });
}

function powerCommands(lab: Command): void {
  onLab(lab.command('power').description('pull the power of a host: all of it is gone at once'))
    .argument('<host>', 'the host')
    .action((host: string, options: LabChoice) => openLab(options).power(host));
  onLab(lab.command('boot').description('switch a host on again, with its disk; starts its agent'))
    .argument('<host>', 'the host')
    .action(async (name: string, options: LabChoice) => {
      const host = openLab(options).host(name);
      await host.boot();
      const hasAgent = host.processes().some(({ command }) => command.includes('holdfastd'));
      if (host.exists('/etc/holdfast/cluster.xml') && !hasAgent) await host.startAgent();
    });
}
