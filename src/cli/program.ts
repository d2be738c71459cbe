/** The tree of commands. */
import { Command } from 'commander';
import { HoldfastError } from '../errors.ts';
import { version } from '../version.ts';
import { clusterCommands } from './commands/cluster.ts';
import { configCommands } from './commands/config.ts';
import { controlCommands } from './commands/control.ts';
import { farmCommands } from './commands/farm.ts';
import { mirrorCommands } from './commands/mirror.ts';
import { moduleCommands } from './commands/module.ts';
import { observeCommands } from './commands/observe.ts';
import { pairCommands } from './commands/pair.ts';
import { quarantineCommands } from './commands/quarantine.ts';
import { statusCommand } from './commands/status.ts';
import { witnessCommands } from './commands/witness.ts';
import { exitCodeOf, exitCodes, reportError } from './exit.ts';
import type { Io } from './io.ts';
import type { Run } from './run.ts';

const labSummary = 'a whole cluster on this machine, to try and to test';

/** Builds the commands; those of the lab only where they are asked for, since they load much. */
export async function buildProgram(run: Run, withLab: boolean): Promise<Command> {
  const program = new Command('holdfast')
    .description('High availability for Linux servers: farms that balance in the kernel.')
    .version(version, '-V, --version', 'print the version')
    .configureOutput({
      writeOut: (text) => run.io.out(text),
      writeErr: (text) => run.io.err(text),
      getOutHelpWidth: () => run.io.columns,
      getErrHelpWidth: () => run.io.columns,
    })
    .helpCommand('help [command]', 'explain a command')
    .showSuggestionAfterError()
    .exitOverride();
  controlCommands(program, run);
  statusCommand(program, run);
  observeCommands(program, run);
  configCommands(program, run);
  moduleCommands(program, run);
  farmCommands(program, run);
  mirrorCommands(program, run);
  pairCommands(program, run);
  quarantineCommands(program, run);
  clusterCommands(program, run);
  witnessCommands(program, run);
  if (withLab) await mountLab(program, run);
  else program.command('lab').description(labSummary);
  inheritSettings(program);
  return program;
}

async function mountLab(program: Command, run: Run): Promise<void> {
  try {
    const { labCommands } = await import('../lab/cli.ts');
    labCommands(program, run);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new HoldfastError('HF-CLI-009', { part: 'lab', reason }, null, cause);
  }
}

/** Subcommands report to the same place and never end the process by themselves. */
function inheritSettings(command: Command): void {
  for (const child of command.commands) {
    child.copyInheritedSettings(command);
    inheritSettings(child);
  }
}

/** Runs one command line (without `node` and the script) and returns the exit code. */
export async function main(args: readonly string[], io: Io): Promise<number> {
  const run: Run = { io, exitCode: exitCodes.done };
  try {
    const program = await buildProgram(run, args[0] === 'lab');
    await program.parseAsync([...args], { from: 'user' });
  } catch (error) {
    reportError(io, error, args.includes('--json'));
    return exitCodeOf(error);
  }
  return run.exitCode;
}
