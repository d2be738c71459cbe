/** Errors of the arbiter: of <arbiter> in cluster.xml, and of its witness. */
export const arbiterErrors = {
  'HF-ARBITER-001': {
    sentence: 'the witness cannot run: {reason}',
    hint: 'It is build/Release/holdfast-witness of the installation; `npm run build` makes it.',
  },
  'HF-ARBITER-002': {
    sentence: 'the folder {folder} of the witness cannot be read: {reason}',
    hint: 'Run this as root on the machine of the witness; --state names another folder.',
  },
  'HF-CONFIG-130': {
    sentence: '<arbiter type="{type}"> needs the attribute "{attribute}"',
    hint: 'docs/operate/arbiter.md shows a line of each type.',
  },
  'HF-CONFIG-131': {
    sentence: 'attribute "{attribute}" is not for <arbiter type="{type}">',
    hint: 'Besides type it takes: {allowed}.',
  },
  'HF-CONFIG-132': {
    sentence: '{attribute}="{value}" of <arbiter> cannot be used',
    hint: 'endpoints: up to 9 different ones, with blanks between them, each http://ADDR:PORT or https://ADDR:PORT with an IP address; prefix: a text that begins and ends with "/".',
  },
  'HF-CONFIG-133': {
    sentence: '{attribute}="{value}" of <arbiter> is not an absolute path',
    hint: 'Write it from "/" on, without "." and "..".',
  },
  'HF-CONFIG-134': {
    sentence: 'node "{name}" of <arbiter> is not in this file',
    hint: 'Name one of the nodes of <lans>: its disk holds the register.',
  },
  'HF-CONFIG-135': {
    sentence: 'the witness "{name}" has the name of a node',
    hint: 'Give the witness a name of its own; its certificate carries it.',
  },
  'HF-CONFIG-136': {
    sentence: 'the witness "{name}" has the address {addr} of node "{node}"',
    hint: 'A mirror on that node has no third place then: when the node fails, so does the arbiter. It counts for mirrors on other nodes only.',
  },
  'HF-CONFIG-137': {
    sentence: '<arbiter type="fence"> is for two nodes, and this file has {count}',
    hint: 'With more nodes take a witness or etcd: whether a third server is off says nothing of the other two.',
  },
} as const;
