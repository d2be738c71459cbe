/** status: the node, its modules, its peers and alerts; once, or again at each event. */
import type { Command } from 'commander';
import type { AgentClient } from '../../api/client.ts';
import type { ModuleStatus, NodeStatus } from '../../host/face.ts';
import { exitCodeOf, quietExitCodeOf, stateCodes } from '../exit.ts';
import {
  act,
  chosenModule,
  type CommonOptions,
  oneAgent,
  onNodes,
  type Run,
  withModule,
} from '../run.ts';
import { moduleText, nodeText } from '../status-text.ts';
import { watch } from '../watch.ts';

interface StatusOptions extends CommonOptions {
  readonly watch?: boolean;
  readonly quiet?: boolean;
  readonly detail?: boolean;
}

/** Adds `status`. */
export function statusCommand(program: Command, run: Run): void {
  const command = withModule(
    program.command('status').description('show the node, its modules, its peers and alerts'),
    'one module, in detail',
  )
    .option('-d, --detail', 'with all that the replication engine of a mirror says of itself')
    .option('-w, --watch', 'show it again whenever something happens, until Ctrl-C')
    .option('-q, --quiet', 'print nothing; the exit code is the state of the module');
  act(
    run,
    command,
    async (given: StatusOptions, argument) => {
      const module = given.module ?? argument;
      const options = module === undefined ? given : { ...given, module };
      if (options.quiet === true) await quietStatus(run, options);
      else if (options.watch === true) await watchStatus(run, options);
      else await showStatus(run, options);
    },
    (error, options) => (options.quiet === true ? quietExitCodeOf(error) : exitCodeOf(error)),
  );
}

async function showStatus(run: Run, options: StatusOptions): Promise<void> {
  await onNodes(
    run,
    options,
    (client) => read(client, options),
    (value) => textOf(value, run, options),
  );
}

function read(client: AgentClient, options: StatusOptions): Promise<NodeStatus | ModuleStatus> {
  return options.module === undefined ? client.status() : client.module(options.module);
}

function textOf(value: NodeStatus | ModuleStatus, run: Run, options: StatusOptions): string {
  const { color } = run.io;
  const detail = options.detail === true;
  if (!('modules' in value)) return moduleText(value, color, detail);
  const node = nodeText(value, run.io.nowMs(), color);
  if (!detail) return node;
  return [node, ...value.modules.map((module) => moduleText(module, color, true))].join('\n');
}

async function quietStatus(run: Run, options: StatusOptions): Promise<void> {
  const client = oneAgent(run, options, 'status -q');
  const name = await chosenModule(client, 'status -q', options.module);
  run.exitCode = stateCodes[(await client.module(name)).state];
}

async function watchStatus(run: Run, options: StatusOptions): Promise<void> {
  const { io } = run;
  const client = oneAgent(run, options, 'status --watch');
  const screen = async (): Promise<string> => {
    const value = await read(client, options);
    return options.json === true ? `${JSON.stringify(value)}\n` : textOf(value, run, options);
  };
  await watch(io, client, options.module ?? null, screen, options.json === true);
}
