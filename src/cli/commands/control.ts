/** start, stop, restart, stopstart, forcestop. */
import type { Command } from 'commander';
import type { ModuleVerb } from '../../host/face.ts';
import { moduleLine } from '../format.ts';
import { act, chosenModule, type CommonOptions, onNodes, type Run, withModule } from '../run.ts';

const verbs: readonly (readonly [ModuleVerb, string])[] = [
  ['start', 'start a module and wait until its scripts have ended'],
  ['stop', 'stop a module: close its address, stop the application'],
  ['restart', 'stop and start the application; the module stays in its state'],
  ['stopstart', 'stop the module and start it again'],
  ['forcestop', 'stop a module at once, its scripts with `force`'],
];

/** Adds the commands that carry a module from state to state. */
export function controlCommands(program: Command, run: Run): void {
  for (const [verb, summary] of verbs) {
    const command = withModule(program.command(verb).description(summary));
    act(run, command, async (options: CommonOptions, argument) => {
      await onNodes(
        run,
        options,
        async (client) =>
          client.command(await chosenModule(client, verb, options.module ?? argument), verb),
        (module) => moduleLine(module, run.io.color),
      );
    });
  }
}
