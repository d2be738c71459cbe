/** Errors of the areas HF-CLUSTER, HF-API and HF-PEER. */
export const clusterErrors = {
  'HF-CLUSTER-001': {
    sentence: 'this server already belongs to a cluster ({file} exists)',
    hint: 'Use `holdfast cluster status`. To start over, stop holdfastd and remove that file and the folder pki beside it.',
    http: 409,
  },
  'HF-CLUSTER-002': {
    sentence: 'this server belongs to no cluster ({file} does not exist)',
    hint: 'Run `holdfast cluster init` on the first server, then the printed join line on the others.',
    http: 409,
  },
  'HF-CLUSTER-003': {
    sentence: 'the join token is not complete',
    hint: 'Copy the whole join line that `holdfast cluster init` or `holdfast cluster token` printed.',
  },
  'HF-CLUSTER-004': {
    sentence: 'the join token is unknown here or was used already',
    hint: 'A token admits one server. Print a new join line with `holdfast cluster token` on {node}.',
    http: 403,
  },
  'HF-CLUSTER-005': {
    sentence: 'the join token has expired',
    hint: 'Print a new join line with `holdfast cluster token` on {node}.',
    http: 403,
  },
  'HF-CLUSTER-006': {
    sentence: 'the server at {addr} is not of the cluster that issued the token',
    hint: 'Nothing was sent to it. Check the address of the join line; another machine may answer for it.',
  },
  'HF-CLUSTER-007': {
    sentence: 'the certificate request is refused: {reason}',
    hint: 'Join with `holdfast cluster join` of the same version as the cluster.',
  },
  'HF-CLUSTER-008': {
    sentence: '"{name}" is no node name',
    hint: 'Use 1 to 63 letters, digits, "." , "-" or "_", beginning with a letter or digit.',
  },
  'HF-CLUSTER-009': {
    sentence: 'the cluster already has a node {name}',
    hint: 'Choose another name, or to replace that server use a token of `holdfast cluster token --replace {name}`.',
    http: 409,
  },
  'HF-CLUSTER-010': {
    sentence: 'node {node} cannot change the cluster: it does not hold the key of the cluster CA',
    hint: 'Run the command on the server where `holdfast cluster init` was run.',
    http: 409,
  },
  'HF-CLUSTER-011': {
    sentence: 'the cluster has {count} nodes, the most there can be',
    hint: 'Remove a node from cluster.xml first.',
    http: 409,
  },
  'HF-CLUSTER-012': {
    sentence: 'the networks do not match those of the cluster: {reason}',
    hint: 'Give one address of this server for each network of the cluster: --lan NAME=ADDR.',
  },
  'HF-CLUSTER-013': {
    sentence: 'too many attempts to join from {addr}',
    hint: 'Wait a few seconds and try again.',
    http: 429,
  },
  'HF-CLUSTER-014': {
    sentence: 'the key file {file} cannot be used: {reason}',
    hint: 'The files of the folder pki belong to root with mode 0600. If they are lost, join this server again.',
    http: 500,
  },
  'HF-CLUSTER-015': {
    sentence: '{file} cannot be written: {reason}',
    hint: 'Check free space and rights of that folder; nothing was changed in the cluster configuration.',
    http: 500,
  },
  'HF-CLUSTER-016': {
    sentence: 'no answer from {addr}: {reason}',
    hint: 'Is holdfastd running there, and does a firewall let port 9453/tcp through?',
    http: 502,
  },
  'HF-CLUSTER-017': {
    sentence: 'the answer of {addr} is not what a cluster sends: {reason}',
    hint: 'Nothing was written here. Join with the same version as the cluster.',
    http: 502,
  },
  'HF-CLUSTER-018': {
    sentence: 'node {node} cannot be replaced by {name}',
    hint: 'A token of --replace admits a server of the same name only (join with --node {node}), and never replaces the node that issues it.',
    http: 409,
  },
  'HF-CLUSTER-019': {
    sentence: 'there are {count} unused join tokens already',
    hint: 'Use them, or wait until they expire.',
    http: 429,
  },
  'HF-API-001': {
    sentence: 'the request is not valid: {where}: {problem}',
    hint: 'See docs/reference/api.md.',
  },
  'HF-API-002': {
    sentence: 'this needs a client certificate of a node of the cluster',
    hint: 'Run `holdfast` as root on a server of the cluster; it uses the local socket.',
    http: 401,
  },
  'HF-API-003': {
    sentence: 'there is nothing at {method} {path}',
    hint: 'See docs/reference/api.md.',
    http: 404,
  },
  'HF-API-004': {
    sentence: 'the request is larger than {limit} bytes',
    hint: 'Send less. A module archive may have at most 16 MiB.',
    http: 413,
  },
  'HF-API-005': {
    sentence: 'the agent failed on this request: {reason}',
    hint: 'The log of the agent has the details: `holdfast log`.',
    http: 500,
  },
  'HF-API-006': {
    sentence: 'a request that another node forwarded is not forwarded again',
    hint: 'Address the node itself.',
    http: 508,
  },
  'HF-API-007': {
    sentence: 'the cluster has no node {node}',
    hint: '`holdfast cluster status` lists the nodes.',
    http: 404,
  },
  'HF-API-008': {
    sentence: 'too many event streams are open ({limit})',
    hint: 'Close one, or read /api/v1/events instead.',
    http: 503,
  },
  'HF-API-009': {
    sentence: 'the agent answered: {message}',
    hint: 'Its version may differ from this one.',
  },
  'HF-API-010': {
    sentence: 'the agent does not answer at {where}: {reason}',
    hint: 'Is holdfastd running? On a server: `systemctl status holdfastd`. The socket is for root only.',
    exit: 69,
    http: 502,
  },
  'HF-API-011': {
    sentence: 'no answer from {where} within {ms} ms',
    hint: 'The command may still be at work: look with `holdfast status`.',
    exit: 69,
    http: 504,
  },
  'HF-API-012': {
    sentence: 'the request cannot be read: {reason}',
    hint: 'See docs/reference/api.md.',
  },
  'HF-API-013': {
    sentence: 'the API cannot listen on {where}: {reason}',
    hint: 'Another program may use the port: `ss -ltnp`.',
  },
  'HF-PEER-001': {
    sentence: 'node {node} cannot be reached: {reason}',
    hint: 'Look at `holdfast cluster status`; the node may be down, or its port {port}/tcp closed.',
    exit: 69,
    http: 502,
  },
  'HF-PEER-002': {
    sentence: 'the port {port} for calls between nodes cannot be opened: {reason}',
    hint: 'Another program may use it: `ss -ltnp`.',
  },
} as const;
