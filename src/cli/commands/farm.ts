/** farm drain, undrain, power: who serves how much. */
import type { Command } from 'commander';
import { duration, moduleLine } from '../format.ts';
import {
  act,
  chosenModule,
  type CommonOptions,
  onNodes,
  type Run,
  wholeNumber,
  withNodes,
} from '../run.ts';

interface PowerOptions extends CommonOptions {
  readonly group?: string;
}

/** The greatest power; the bucket shares are computed in whole numbers. */
const maxPower = 2 ** 24;

/** Adds `farm …`. */
export function farmCommands(program: Command, run: Run): void {
  const farm = program.command('farm').description('change who serves how much of a farm');
  drainCommand(farm, run, true);
  drainCommand(farm, run, false);
  powerCommand(farm, run);
}

function drainCommand(farm: Command, run: Run, on: boolean): void {
  const verb = on ? 'drain' : 'undrain';
  const summary = on
    ? 'give the clients of a node to the others; wait until its connections have ended'
    : 'let a drained node serve again';
  const command = withNodes(farm.command(verb).description(summary))
    .argument('<node>', 'the node')
    .option('-m, --module <module>', 'the module; may be left out where there is only one');
  act(run, command, async (options: CommonOptions, node = '') => {
    const started = run.io.nowMs();
    await onNodes(
      run,
      options,
      async (client) =>
        client.drain(await chosenModule(client, `farm ${verb}`, options.module), node, on),
      (module) => {
        const took = duration(run.io.nowMs() - started);
        return `${node} ${on ? 'is drained' : 'serves again'} (${took})\n${moduleLine(module, run.io.color)}`;
      },
    );
  });
}

function powerCommand(farm: Command, run: Run): void {
  const command = withNodes(
    farm
      .command('power')
      .description('set the weight of a node until the module stops; 0 takes its clients away'),
  )
    .argument('<node>', 'the node')
    .argument('<power>', `0 to ${maxPower}`)
    .option('-m, --module <module>', 'the module; may be left out where there is only one')
    .option('-g, --group <group>', 'only in this group of the load balancing list');
  act(run, command, async (options: PowerOptions, node = '', value = '') => {
    const power = wholeNumber('farm power', value, 0, maxPower);
    await onNodes(
      run,
      options,
      async (client) => {
        const module = await chosenModule(client, 'farm power', options.module);
        return client.power(module, node, options.group ?? null, power);
      },
      (module) => `${node} has power ${power}\n${moduleLine(module, run.io.color)}`,
    );
  });
}
