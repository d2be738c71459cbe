/** docs/reference/cli.md from the tree of commands. */
import type { Command } from 'commander';
import { exitMeanings, stateCodes } from '../../src/cli/exit.ts';

const intro = `# The command \`holdfast\`

This page is made from the commands themselves: \`UPDATE=1 npm test -- cli/reference\` writes it again.

\`holdfast\` speaks with the agent of this server through \`/run/holdfast/agent.sock\`, for root only. Commands that need no agent say
so. With \`-H NODE\` the agent passes the command on to another node of the cluster; \`-H n1,n2\` or \`-H '*'\` runs it on several at once
and prints each result under the name of its node.

Where a command needs a module and the node has only one, its name may be left out.

\`--json\` prints the answer as one JSON value: with several nodes a list of \`{"node", "result"}\` or \`{"node", "error"}\`
(\`events\`: one list of the events of all nodes, in the order of time). Commands that go on (\`--watch\`, \`--follow\`) print one JSON value per line. Errors come on stderr, as

    error[HF-CONFIG-012] userconfig.xml:14: what is wrong
    hint: what can be done

and with \`--json\` as \`{"error": {"code", "message", "hint", "file", "line"}}\`, where several are known all of them in \`errors\`.

Colours (red NotReady, magenta Transient, green Ready) appear on a terminal only, and never where \`NO_COLOR\` is set.
`;

function exits(): string {
  const rows = exitMeanings.map(([code, meaning]) => `| ${code} | ${meaning} |\n`).join('');
  const states = Object.entries(stateCodes).map(([state, code]) => `${state} ${code}`);
  return (
    `## Exit codes\n\n| code | meaning |\n|---|---|\n${rows}\n` +
    `\`holdfast status -q\` answers by the state of the module, with SafeKit's codes: ${states.join(', ')}; ` +
    'every error there is 64 or more.\n'
  );
}

function escape(text: string): string {
  return text.replace(/\|/g, '\\|').replace(/</g, '&lt;');
}

function rowsOf(command: Command): string {
  const help = command.createHelp();
  const list = [
    ...help.visibleArguments(command).map((one) => [one.name(), help.argumentDescription(one)]),
    ...help
      .visibleOptions(command)
      .filter((one) => one.long !== '--help')
      .map((one) => [help.optionTerm(one), help.optionDescription(one)]),
  ];
  if (list.length === 0) return '';
  const rows = list.map(([term = '', text = '']) => `| \`${term}\` | ${escape(text)} |\n`);
  return `\n| argument, option | |\n|---|---|\n${rows.join('')}`;
}

function section(command: Command): string {
  const help = command.createHelp();
  const leafs = command.commands.filter((child) => child.name() !== 'help');
  if (leafs.length > 0) return leafs.map(section).join('');
  const usage = help.commandUsage(command);
  const examples = help.commandDescription(command);
  return `\n### ${titleOf(command)}\n\n    ${usage}\n\n${sentence(examples)}\n${rowsOf(command)}`;
}

function sentence(text: string): string {
  return escape(
    `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${text.endsWith('.') ? '' : '.'}`,
  );
}

function titleOf(command: Command): string {
  const names: string[] = [];
  for (let at = command; at.parent !== null; at = at.parent) names.unshift(at.name());
  return names.join(' ');
}

/** The page. */
export function cliReference(program: Command): string {
  return `${intro}\n${exits()}\n## Commands\n${section(program)}`;
}
