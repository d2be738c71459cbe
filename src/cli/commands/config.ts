/** config and confcheck: what a module is told to do, and whether it can be told so. */
import type { Command } from 'commander';
import type { AgentClient } from '../../api/client.ts';
import type { ModuleStatus } from '../../host/face.ts';
import type { FileReport } from '../confcheck.ts';
import { errorLines, exitCodes, ManyErrors } from '../exit.ts';
import { readText } from '../files.ts';
import { moduleLine, plural } from '../format.ts';
import {
  act,
  chosenModule,
  type CommonOptions,
  onNodes,
  printJson,
  type Run,
  withModule,
  withNodes,
} from '../run.ts';

interface ConfigOptions extends CommonOptions {
  readonly file?: string;
}

interface ConfcheckOptions extends CommonOptions {
  readonly cluster?: string;
}

/** Adds `config` and `confcheck`. */
export function configCommands(program: Command, run: Run): void {
  const config = withModule(
    program
      .command('config')
      .description("check and apply a module's configuration; a refused one changes nothing"),
  ).option('-f, --file <file>', 'a new userconfig.xml for it, "-" for standard input');
  act(run, config, async (options: ConfigOptions, argument) => {
    const xml = options.file === undefined ? null : await readText(options.file);
    await onNodes(
      run,
      options,
      async (client) => {
        const name = await chosenModule(client, 'config', options.module ?? argument);
        return apply(client, name, xml);
      },
      (module) => moduleLine(module, run.io.color),
    );
  });
  confcheckCommand(program, run);
}

/** Checks first, so that all errors are told and not only the one that the refusal names. */
async function apply(client: AgentClient, name: string, xml: string | null): Promise<ModuleStatus> {
  const errors = await client.checkConfig(name, xml);
  if (errors.length > 0) throw new ManyErrors(errors);
  return client.applyConfig(name, xml);
}

function confcheckCommand(program: Command, run: Run): void {
  const command = withNodes(
    program
      .command('confcheck')
      .description('check cluster.xml and userconfig.xml files; needs no agent, changes nothing'),
  )
    .argument(
      '[files...]',
      'files, or names of installed modules; without any, all that is installed here',
    )
    .option('-m, --module <module>', 'this installed module; for a file, the name it is checked as')
    .option('--cluster <file>', 'the cluster.xml to check modules against');
  act(run, command, async (options: ConfcheckOptions) => {
    if (options.host !== undefined) {
      await checkOnNodes(run, options);
      return;
    }
    // The XML library is loaded here only: no other command needs it.
    const { confcheck } = await import('../confcheck.ts');
    const reports = await confcheck({
      paths: run.io.paths,
      files: command.processedArgs[0] as string[],
      module: options.module ?? null,
      cluster: options.cluster ?? null,
    });
    if (reports.some((one) => !one.ok)) run.exitCode = exitCodes.badConfig;
    if (options.json === true) printJson(run.io, reports);
    else for (const one of reports) tell(run, one);
  });
}

/** With -H: the installed configuration of a module, by the agent of that node. */
async function checkOnNodes(run: Run, options: ConfcheckOptions): Promise<void> {
  await onNodes(
    run,
    options,
    async (client) => {
      const name = await chosenModule(client, 'confcheck', options.module);
      const errors = await client.checkConfig(name, null);
      if (errors.length > 0) throw new ManyErrors(errors);
      return { module: name, ok: true };
    },
    ({ module }) => `${module}: ok\n`,
  );
}

function tell(run: Run, report: FileReport): void {
  const { io } = run;
  io.err(report.errors.map(errorLines).join(''));
  io.err(report.warnings.map((one) => errorLines(one).replace(/^error/, 'warning')).join(''));
  const { file, errors, ok } = report;
  io.out(`${file}: ${ok ? 'ok' : plural(errors.length, 'error')}\n`);
}
