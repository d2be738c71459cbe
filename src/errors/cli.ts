/** Errors of the command line itself, area HF-CLI. */
export const cliErrors = {
  'HF-CLI-001': {
    sentence: 'which module? this node has {modules}',
    hint: 'Name it: `holdfast {command} MODULE` or `-m MODULE`.',
    exit: 64,
  },
  'HF-CLI-002': {
    sentence: 'no module is installed on this node',
    hint: 'Install one: `holdfast module install FILE.safe`; ready-made ones are listed by `holdfast module list --templates`.',
  },
  'HF-CLI-003': {
    sentence: '{file} cannot be read: {reason}',
    hint: 'Check the name and the rights of the file.',
  },
  'HF-CLI-004': {
    sentence: '{file} cannot be written: {reason}',
    hint: 'Check the folder, its rights and the free space.',
  },
  'HF-CLI-005': {
    sentence: '"{value}" is not {expected}',
    hint: 'See `holdfast {command} --help`.',
    exit: 64,
  },
  'HF-CLI-006': {
    sentence: '{file} is neither a cluster.xml nor a userconfig.xml: its root element is <{root}>',
    hint: 'A cluster.xml begins with <cluster>, a userconfig.xml with <safe>.',
    exit: 2,
  },
  'HF-CLI-007': {
    sentence:
      '{name} is neither a .safe file, a folder with conf/ and bin/, nor a ready-made module',
    hint: 'Ready-made modules are: {templates}.',
  },
  'HF-CLI-008': {
    sentence: '`holdfast {command}` takes one node with -H, not several',
    hint: 'Name one node.',
    exit: 64,
  },
  'HF-CLI-009': {
    sentence: 'this copy of Holdfast has no {part}: {reason}',
    hint: 'Run `npm run build` in a checkout, or install the package again.',
  },
  'HF-CLI-010': {
    sentence: 'no cluster.xml to check {file} against: {cluster} does not exist',
    hint: 'Name one: `holdfast confcheck {file} --cluster FILE`.',
    exit: 2,
  },
  'HF-CLI-011': {
    sentence: '`holdfast {command}` may give up data, and nobody is there to be asked',
    hint: 'Read what it says (without --json), then give --yes.',
  },
  'HF-CLI-012': {
    sentence: 'nothing was done: the answer was not yes',
    hint: '',
  },
  'HF-CLI-013': {
    sentence:
      '`holdfast prim --{option}` is for mirrors that are run by hand; {module} has an arbiter',
    hint: '`holdfast primforce -m {module}` makes this server primary with the copy that it has, and says what is given up by it.',
    exit: 64,
  },
} as const;
