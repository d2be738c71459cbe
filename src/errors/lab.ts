/** Errors of the area HF-LAB. */
export const labErrors = {
  'HF-LAB-001': {
    sentence: 'the lab tool {path} is not there',
    hint: 'Run `npm run build`.',
  },
  'HF-LAB-002': {
    sentence: 'the lab builds network namespaces and must run as root',
    hint: 'Run the command with sudo.',
  },
  'HF-LAB-003': {
    sentence: 'a lab named {name} is already up',
    hint: 'End it with `holdfast lab down {name}`, or choose another --name.',
  },
  'HF-LAB-004': {
    sentence: 'no lab named {name} is up',
    hint: '`holdfast lab list` shows the labs; `holdfast lab up` starts one.',
  },
  'HF-LAB-005': {
    sentence: 'lab {lab} has no {kind} named {name}',
    hint: 'It has: {names}.',
  },
  'HF-LAB-006': {
    sentence: 'a step of the lab failed: {step}: {reason}',
    hint: 'What the lab needs of the machine is listed in docs/reference/lab.md.',
  },
  'HF-LAB-007': {
    sentence: 'the agent on {host} did not come up within {waitMs} ms: {reason}',
    hint: 'Its output is in {log}.',
  },
  'HF-LAB-008': {
    sentence: '{host} is powered off',
    hint: 'Boot it first (`holdfast lab boot {host}`).',
  },
  'HF-LAB-009': {
    sentence: 'the lab cannot do that: {reason}',
    hint: '`holdfast lab fault --help` says what each fault takes.',
  },
  'HF-LAB-010': {
    sentence: '{command} on {host} ended with {code}: {output}',
    hint: 'Run it by hand with `holdfast lab exec {host} -- …`.',
  },
  'HF-LAB-011': {
    sentence: 'several labs are up: {names}',
    hint: 'Say which one is meant with --lab NAME (`lab down` takes the name itself).',
  },
  'HF-LAB-012': {
    sentence: 'the clients did not see what was waited for within {waitMs} ms: {seen}',
    hint: 'What they saw instead is in the sentence; docs/reference/lab.md explains the fields.',
  },
  'HF-LAB-013': {
    sentence: 'the clients do not answer: {reason}',
    hint: 'They end with their namespace (`lab power clients`, `lab down`) and when stopped.',
  },
  'HF-LAB-014': {
    sentence: '{folder} belongs to somebody else',
    hint: 'The lab runs as root on what is written there. Remove it, or set TMPDIR to a folder of root.',
  },
  'HF-LAB-020': {
    sentence: 'waited {waitMs} ms in vain for {what}; the agents say: {last}',
    hint: 'The agents write to NAME.agent.log in the folder of the lab.',
  },
} as const;
