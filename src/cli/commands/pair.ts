/** swap, failover, primforce, set: mirrors that decide for themselves. */
import type { Command } from 'commander';
import type { AgentClient } from '../../api/client.ts';
import { HoldfastError } from '../../errors.ts';
import type { ModuleStatus } from '../../host/face.ts';
import { exitCodeOf, jsonOf, recordsOf, errorLines } from '../exit.ts';
import { moduleLine } from '../format.ts';
import { lossText, type Other } from '../loss.ts';
import {
  act,
  chosenModule,
  type CommonOptions,
  oneAgent,
  onNodes,
  printJson,
  type Run,
  withModule,
  withNodes,
} from '../run.ts';

interface ForceOptions extends CommonOptions {
  readonly yes?: boolean;
}

/** Adds the commands that need an arbiter in cluster.xml. */
export function pairCommands(program: Command, run: Run): void {
  swapCommand(program, run);
  failoverCommand(program, run);
  primforceCommand(program, run);
  setCommand(program, run);
}

interface SetOptions extends CommonOptions {
  readonly resource: string;
  readonly value: string;
  readonly reason?: string;
}

/** For a module's own checkers, which have $SAFEMODULE. */
function setCommand(program: Command, run: Run): void {
  const set = withModule(
    program
      .command('set')
      .description(
        'say what a checker of a module has found: its resource is up, or down; says nothing itself',
      ),
  )
    .requiredOption('-r, --resource <resource>', 'the resource, such as custom.disk')
    .requiredOption('-v, --value <value>', 'up or down')
    .option('--reason <text>', 'what was found, for `why` and the journal');
  act(run, set, async (options: SetOptions, argument) => {
    const { resource, value } = options;
    if (value !== 'up' && value !== 'down') {
      throw new HoldfastError('HF-CLI-005', { value, expected: 'up or down', command: 'set' });
    }
    const client = oneAgent(run, options, 'set');
    const named = options.module ?? argument ?? process.env['SAFEMODULE'];
    const name = await chosenModule(client, 'set', named);
    const reason = options.reason ?? 'says its checker';
    const module = await client.setResource(name, resource, value, reason);
    if (options.json === true) printJson(run.io, module);
  });
}

function swapCommand(program: Command, run: Run): void {
  const swap = withNodes(
    program
      .command('swap')
      .description('move the application of a mirror to its other server; on either of the two'),
  )
    .argument(
      '[way]',
      'nosync: the server that it leaves keeps its copy as it is until `start`, before an upgrade, say',
    )
    .argument('[module]', 'the module; may be left out where the node has only one')
    .option('-m, --module <module>', 'the same as the argument');
  act(run, swap, async (options: CommonOptions, first, second) => {
    const sync = first !== 'nosync';
    if (sync && second !== undefined) {
      const values = { value: first ?? '', expected: 'nosync', command: 'swap' };
      throw new HoldfastError('HF-CLI-005', values);
    }
    const client = oneAgent(run, options, 'swap');
    const name = await chosenModule(client, 'swap', options.module ?? (sync ? first : second));
    const module = await client.swap(name, sync);
    if (options.json === true) printJson(run.io, module);
    else run.io.out(moduleLine(module, run.io.color));
  });
}

function failoverCommand(program: Command, run: Run): void {
  const failover = withNodes(
    program
      .command('failover')
      .description(
        'say whether a mirror takes over by itself when its primary is lost; on both servers unless -H names them',
      ),
  )
    .argument('<switch>', 'on or off')
    .argument('[module]', 'the module; may be left out where the node has only one')
    .option('-m, --module <module>', 'the same as the argument');
  act(run, failover, async (options: CommonOptions, word, argument) => {
    if (word !== 'on' && word !== 'off') {
      const values = { value: word ?? '', expected: 'on or off', command: 'failover' };
      throw new HoldfastError('HF-CLI-005', values);
    }
    const on = word === 'on';
    const client = run.io.connect();
    if (options.host === undefined) {
      const name = await chosenModule(client, 'failover', options.module ?? argument);
      await onBoth(run, options, client, name, (one) => one.failover(name, on));
      return;
    }
    await onNodes(
      run,
      options,
      async (one) =>
        one.failover(await chosenModule(one, 'failover', options.module ?? argument), on),
      (module) => failoverLine(module, run.io.color),
    );
  });
}

function failoverLine(module: ModuleStatus, color: boolean): string {
  const line = moduleLine({ ...module, why: [] }, color).trimEnd();
  return `${line}  failover ${module.pair?.failover === false ? 'off' : 'on'}\n`;
}

/** On this server, which must do it, and on the mirror's other one, which may be away. */
async function onBoth(
  run: Run,
  options: CommonOptions,
  client: AgentClient,
  name: string,
  call: (client: AgentClient) => Promise<ModuleStatus>,
): Promise<void> {
  const { io } = run;
  const here = (await client.status()).node;
  const own = await call(client);
  const there = own.pair?.peer.node;
  if (there === undefined) {
    if (options.json === true) printJson(io, [{ node: here, result: own }]);
    else io.out(`${here}: ${failoverLine(own, io.color)}`);
    return;
  }
  const answer = await call(client.onNode(there)).then(
    (result) => ({ result, failure: null }),
    (cause: unknown) => ({ result: null, failure: { cause } }),
  );
  if (answer.failure !== null) run.exitCode = exitCodeOf(answer.failure.cause);
  if (options.json === true) {
    const other =
      answer.failure === null ? { result: answer.result } : jsonOf(answer.failure.cause);
    printJson(io, [
      { node: here, result: own },
      { node: there, ...other },
    ]);
    return;
  }
  io.out(`${here}: ${failoverLine(own, io.color)}`);
  if (answer.result !== null) io.out(`${there}: ${failoverLine(answer.result, io.color)}`);
  else {
    io.err(recordsOf(answer.failure.cause).map(errorLines).join(''));
    io.err(`${there} keeps what it had: run \`holdfast failover … -m ${name}\` once it is there\n`);
  }
}

function primforceCommand(program: Command, run: Run): void {
  const primforce = withModule(
    program
      .command('primforce')
      .description(
        'make this server the primary of a mirror with the copy that it has; says what is given up by it, and asks',
      ),
  ).option('-y, --yes', 'do not ask');
  act(run, primforce, async (options: ForceOptions, argument) => {
    const { io } = run;
    const client = oneAgent(run, options, 'primforce');
    const name = await chosenModule(client, 'primforce', options.module ?? argument);
    const { node } = await client.status();
    const own = await client.module(name);
    const other = await otherOf(run, own, name);
    if (options.json !== true) io.err(lossText(node, own, other));
    if (options.yes !== true) {
      if (!io.canAsk || options.json === true) {
        throw new HoldfastError('HF-CLI-011', { command: `primforce ${name}` });
      }
      const answer = await io.ask('Go on? Type yes: ');
      if (answer.trim().toLowerCase() !== 'yes') throw new HoldfastError('HF-CLI-012');
    }
    const module = await client.prim(name, false, true);
    if (options.json === true) printJson(io, module);
    else io.out(moduleLine(module, io.color));
  });
}

/** What the other server says of the mirror; null: it does not answer. */
async function otherOf(run: Run, own: ModuleStatus, name: string): Promise<Other | null> {
  const node = own.pair?.peer.node ?? own.replica?.peer;
  if (node === undefined || node === '') return null;
  // It may be this command's reason that it does not answer.
  const status = await run.io
    .connect()
    .onNode(node)
    .module(name)
    .catch(() => null);
  return { node, status };
}
