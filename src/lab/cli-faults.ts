/** `holdfast lab fault …`: one command per fault; `lab clear` ends them. */
import { type Command, Option } from 'commander';
import { HoldfastError } from '../errors.ts';
import { countOf, type LabChoice, onLab, openLab, write } from './cli.ts';
import type { Direction } from './faults.ts';

interface FaultOptions extends LabChoice {
  readonly lan?: string;
}
interface DirectedOptions extends FaultOptions {
  readonly direction?: Direction;
}
interface CutOptions extends FaultOptions {
  readonly oneWay?: boolean;
}

/** Adds `lab fault …`. */
export function faultCommands(lab: Command): void {
  const fault = lab.command('fault').description('do harm: cut, lose, delay, stop');
  cutCommands(fault);
  frameCommands(fault);
  processCommands(fault);
}

function add(fault: Command, name: string, text: string): Command {
  return onLab(fault.command(name).description(text)).option(
    '--lan <number>',
    'network 0 or 1; all where absent',
  );
}

const lanOf = ({ lan }: FaultOptions) => (lan === undefined ? undefined : countOf(lan, 0, 1));

/** Says how to end what has just begun. */
async function tell(command: Command, begun: Promise<readonly number[]>): Promise<void> {
  for (const id of await begun) write(command, `fault ${id}\n`);
}

function cutCommands(fault: Command): void {
  add(fault, 'cut', 'frames of A do not reach B, nor the other way round')
    .argument('<a>', 'a host or a client namespace')
    .argument('<b>', 'another')
    .option('--one-way', 'those of B still reach A')
    .action((a: string, b: string, options: CutOptions, command: Command) => {
      const way = options.oneWay === true ? 'to' : 'both';
      return tell(command, openLab(options).cut(a, b, way, lanOf(options)));
    });
  add(fault, 'isolate', 'a host reaches nobody and nobody reaches it')
    .argument('<host>', 'the host')
    .option('--one-way', 'it still gets what the others send')
    .action((host: string, options: CutOptions, command: Command) => {
      const way = options.oneWay === true ? 'to' : 'both';
      return tell(command, openLab(options).cutAll(host, way, lanOf(options)));
    });
  add(fault, 'partition', 'two groups that do not reach each other: partition s1,clients s2,s3')
    .argument('<group>', 'names with commas')
    .argument('<others>', 'names with commas')
    .action((group: string, others: string, options: FaultOptions, command: Command) => {
      const begun = openLab(options).partition(group.split(','), others.split(','), lanOf(options));
      return tell(command, begun);
    });
  add(fault, 'unplug', "pull a host's cable")
    .argument('<host>', 'the host')
    .action((host: string, options: FaultOptions, command: Command) =>
      tell(command, openLab(options).unplug(host, lanOf(options))),
    );
}

/** The options of a fault of frames, as the lab takes them. */
function framesOf(options: DirectedOptions): { lan?: number; direction: Direction } {
  const lan = lanOf(options);
  return { direction: options.direction ?? 'both', ...(lan === undefined ? {} : { lan }) };
}

function frameCommands(fault: Command): void {
  const directed = (name: string, text: string) =>
    add(fault, name, text)
      .addOption(
        new Option('--direction <way>', 'frames that it sends (out) or should get (in)')
          .choices(['in', 'out', 'both'])
          .default('both'),
      )
      .argument('<host>', 'the host');
  directed('loss', 'lose that part of the frames of a host')
    .argument('<percent>', '0 to 100')
    .action((host: string, percent: string, options: DirectedOptions, command: Command) =>
      tell(command, openLab(options).loss(host, countOf(percent, 0, 100), framesOf(options))),
    );
  directed('duplicate', 'send that part of the frames of a host twice')
    .argument('<percent>', '0 to 100')
    .action((host: string, percent: string, options: DirectedOptions, command: Command) =>
      tell(command, openLab(options).duplicate(host, countOf(percent, 0, 100), framesOf(options))),
    );
  directed('delay', 'delay the frames of a host')
    .argument('<ms>', 'milliseconds, each way')
    .option('--jitter <ms>', 'more or less by up to this; reorders', '0')
    .action(
      (
        host: string,
        ms: string,
        options: DirectedOptions & { readonly jitter: string },
        command: Command,
      ) => {
        const jitterMs = countOf(options.jitter, 0, 60_000);
        const frames = { ...framesOf(options), jitterMs };
        return tell(command, openLab(options).delay(host, countOf(ms, 0, 60_000), frames));
      },
    );
}

function processCommands(fault: Command): void {
  onLab(fault.command('pause').description('stop (SIGSTOP) the processes of a host'))
    .argument('<host>', 'the host')
    .argument('[pattern]', 'only those whose command line matches')
    .action((name: string, pattern: string | undefined, options: LabChoice, command: Command) => {
      const lab = openLab(options);
      const chosen = pattern === undefined ? undefined : matching(lab.host(name), pattern);
      return tell(command, lab.pause(name, chosen));
    });
  onLab(fault.command('slow').description('make a host compete for its CPU time'))
    .argument('<host>', 'the host')
    .option('--hogs <number>', 'busy processes', '4')
    .action((host: string, options: LabChoice & { readonly hogs: string }, command: Command) =>
      tell(command, openLab(options).slow(host, countOf(options.hogs, 1, 256))),
    );
  onLab(fault.command('kill').description('end processes of a host for good'))
    .argument('<host>', 'the host')
    .argument('<pattern>', 'those whose command line matches')
    .option('--signal <name>', 'the signal', 'SIGKILL')
    .action(
      (
        name: string,
        pattern: string,
        options: LabChoice & { readonly signal: NodeJS.Signals },
        command: Command,
      ) => {
        const count = openLab(options).host(name).kill(patternOf(pattern), options.signal);
        write(command, `${count} processes\n`);
      },
    );
}

function patternOf(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch {
    throw new HoldfastError('HF-LAB-009', { reason: `${text} is not a regular expression` });
  }
}

function matching(host: ReturnType<ReturnType<typeof openLab>['host']>, pattern: string) {
  const chosen = host.processes().filter(({ command }) => patternOf(pattern).test(command));
  if (chosen.length > 0) return chosen.map(({ id }) => id);
  throw new HoldfastError('HF-LAB-009', {
    reason: `no process of ${host.name} matches ${pattern}`,
  });
}
