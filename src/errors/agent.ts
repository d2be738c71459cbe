/** Errors of the agent: what it refuses, and what keeps it from starting. */
export const agentErrors = {
  'HF-AGENT-001': {
    sentence: 'another agent runs on this state folder ({file} is locked)',
    hint: 'Stop it first (`systemctl stop holdfast`); two agents on one server would fight over its addresses.',
    exit: 64,
    http: 409,
  },
  'HF-AGENT-002': {
    sentence: 'this server is in no cluster: {file} does not exist',
    hint: 'Run `holdfast cluster init` on the first server, `holdfast cluster join` on the others.',
    exit: 64,
  },
  'HF-AGENT-003': {
    sentence: 'module {module} is not installed on {node}',
    hint: '`holdfast module list` shows the installed ones; `holdfast module install` adds one.',
    http: 404,
  },
  'HF-AGENT-004': {
    sentence: 'module {module} has no valid configuration',
    hint: 'Run `holdfast confcheck -m {module}`, mend what it names, then `holdfast config -m {module}`.',
    http: 409,
  },
  'HF-AGENT-005': {
    sentence: 'module {module} is {state}: {verb} is not possible now',
    hint: '`holdfast why -m {module}` says what it waits for.',
    http: 409,
  },
  'HF-AGENT-006': {
    sentence: 'module {module} must be stopped before its {what} can change',
    hint: 'Run `holdfast stop -m {module}`, then try again. The running configuration is untouched.',
    http: 409,
  },
  'HF-AGENT-007': {
    sentence: 'module {module} is no farm',
    hint: 'Drain and power are for modules with mode="farm".',
    http: 409,
  },
  'HF-AGENT-008': {
    sentence: 'no network device of {node} carries the network of {module}',
    hint: 'Set <interface name="…"> in userconfig.xml, or check the address of this node in cluster.xml.',
    http: 409,
  },
  'HF-AGENT-009': {
    sentence: 'node {node} is not in the cluster',
    hint: '`holdfast cluster status` lists the nodes.',
    http: 404,
  },
  'HF-AGENT-010': {
    sentence: '{what} is {value}: it must be {rule}',
    hint: 'Give a value in that range.',
  },
  'HF-AGENT-011': {
    sentence: 'no room for another module: the node holds {max}',
    hint: 'Uninstall a module that is no longer used.',
    http: 409,
  },
  'HF-AGENT-012': {
    sentence: 'this node ({name}) is not in cluster.xml',
    hint: 'The certificate in pki/ names this node; cluster.xml must list it on at least one lan.',
    exit: 64,
  },
  'HF-AGENT-100': {
    sentence: '{file} could not be written: {reason}',
    hint: 'The node goes on with what it knows. See that the disk has room and the folder can be written.',
    http: 507,
  },
  'HF-AGENT-101': {
    sentence: '{file} is damaged: {reason}',
    hint: 'The copy written before it is used where there is one; the damaged file was kept beside it.',
    http: 500,
  },
  'HF-AGENT-102': {
    sentence: '{file} has version {found}; this program reads up to {known}',
    hint: 'It was written by a newer Holdfast. Install that version again.',
    http: 500,
  },
} as const;
