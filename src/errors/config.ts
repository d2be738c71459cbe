/** Errors of the area HF-CONFIG: cluster.xml and userconfig.xml. */
export const configErrors = {
  // The file as such.
  'HF-CONFIG-001': {
    sentence: 'cannot read {file}: {reason}',
    hint: 'Check that the file exists and that root can read it.',
  },
  'HF-CONFIG-002': {
    sentence: 'the file is larger than {limit}',
    hint: 'A configuration is a few kilobytes; was another file given?',
  },
  'HF-CONFIG-003': {
    sentence: 'the file is not UTF-8',
    hint: 'Save it as UTF-8, for example with `iconv -f latin1 -t utf-8`.',
  },
  'HF-CONFIG-004': {
    sentence: 'the file is empty',
    hint: 'Write its root element <{root}>.',
  },
  'HF-CONFIG-005': {
    sentence: 'not well-formed XML: {reason}',
    hint: 'Look at this line and the one before: an unclosed tag, a missing quote, a bare & or <.',
  },
  'HF-CONFIG-006': {
    sentence: 'a document type declaration is not accepted',
    hint: 'Remove <!DOCTYPE …>; for text that recurs use <macro>.',
  },
  'HF-CONFIG-007': {
    sentence: 'elements are nested deeper than {limit}',
    hint: 'No configuration needs that; is an end tag missing?',
  },
  'HF-CONFIG-008': {
    sentence: 'more than {limit} elements and attributes',
    hint: 'No configuration needs that many.',
  },
  'HF-CONFIG-009': {
    sentence: 'the root element is <{found}>, expected <{root}>',
    hint: 'Was the right file given? The forms of all files are in docs/reference.',
  },
  // Form: what the XSD says.
  'HF-CONFIG-010': {
    sentence: 'unknown element <{element}> in <{parent}>{suggestion}',
    hint: 'Allowed there: {allowed}.',
  },
  'HF-CONFIG-011': {
    sentence: 'element <{element}> is not allowed at this place in <{parent}>: {reason}',
    hint: 'Allowed there: {allowed}.',
  },
  'HF-CONFIG-012': {
    sentence: 'unknown attribute "{attribute}" of <{element}>{suggestion}',
    hint: 'Attributes of <{element}>: {allowed}.',
  },
  'HF-CONFIG-013': {
    sentence: '<{element}> needs the attribute "{attribute}"',
    hint: 'Write {attribute}="…": {wanted}.',
  },
  'HF-CONFIG-014': {
    sentence: '<{element}> needs {wanted}',
    hint: 'Add it between <{element}> and </{element}>.',
  },
  'HF-CONFIG-015': {
    sentence: '{attribute}="{value}" of <{element}>: not one of {allowed}{suggestion}',
    hint: 'Write one of the values named.',
  },
  'HF-CONFIG-016': {
    sentence: '{attribute}="{value}" of <{element}>: expected {wanted}',
    hint: 'Correct the value.',
  },
  'HF-CONFIG-017': {
    sentence:
      '{attribute}="{value}" of <{element}>: the unit {unit} is smaller than the unit of this attribute, {own}',
    hint: 'Write the time in {own} or a greater unit.',
  },
  'HF-CONFIG-018': {
    sentence: '{attribute}="{value}" of <{element}>: longer than 365 days',
    hint: 'Write a shorter time.',
  },
  'HF-CONFIG-019': {
    sentence: 'text is not allowed in <{element}>',
    hint: 'Values are written as attributes; put remarks into <!-- … -->.',
  },
  'HF-CONFIG-020': {
    sentence: 'against the schema: {reason}',
    hint: 'Compare with the reference in docs/reference.',
  },
  'HF-CONFIG-021': {
    sentence: 'unknown macro %{name}%{suggestion}',
    hint: 'Define <macro name="{name}" value="…"/>, or write %% for a percent sign.',
  },
  'HF-CONFIG-022': {
    sentence: 'macro "{name}" is defined twice, first on line {first}',
    hint: 'Remove one of them.',
  },
  'HF-CONFIG-023': {
    sentence: 'macro %{name}% refers to itself, or macros are nested deeper than {limit}',
    hint: 'Write the value out.',
  },
  'HF-CONFIG-024': {
    sentence: 'a macro makes this value longer than {limit} characters',
    hint: 'Shorten the macro.',
  },
  'HF-CONFIG-025': {
    sentence: 'the value of macro %{name}% has more than one line',
    hint: 'Write it on one line.',
  },
  'HF-CONFIG-026': {
    sentence: 'namespaces are not used here, found on <{element}>',
    hint: 'Remove the prefix or xmlns; xsi:noNamespaceSchemaLocation on the root is fine.',
  },
  'HF-CONFIG-027': {
    sentence: 'the XML library gave up: {reason}',
    hint: 'Please report this with the file.',
  },
  'HF-CONFIG-028': {
    sentence: 'more than {limit} errors; the others are not shown',
    hint: 'Correct those above and check again.',
  },
  // cluster.xml.
  'HF-CONFIG-030': {
    sentence: '{attribute}="{value}" of <{element}> is not an IP address',
    hint: 'Write an IPv4 or IPv6 address in its usual form; host names are refused, so that nothing depends on name resolution.',
  },
  'HF-CONFIG-031': {
    sentence: '{attribute}="{value}" of <{element}> cannot be used: {reason}',
    hint: 'Write the address of one server, without a zone.',
  },
  'HF-CONFIG-032': {
    sentence: 'node "{name}" appears twice in lan "{lan}", first on line {first}',
    hint: 'A node has one address on a network; write a second network as another <lan>.',
  },
  'HF-CONFIG-033': {
    sentence: 'lan "{name}" is defined twice, first on line {first}',
    hint: 'Give each network its own name.',
  },
  'HF-CONFIG-034': {
    sentence: 'address {addr} is already that of node "{node}" on line {first}',
    hint: 'Each node has its own address on each network.',
  },
  'HF-CONFIG-035': {
    sentence: 'no lan holds all nodes: {missing}',
    hint: 'Add the missing nodes to one <lan>: some network must reach every server.',
  },
  'HF-CONFIG-036': {
    sentence: 'asymmetric cluster: lan "{lan}" holds only node "{node}"',
    hint: 'Add the other nodes of this network, or remove the <lan>.',
  },
  'HF-CONFIG-037': {
    sentence: 'lan "{lan}" does not hold {missing}',
    hint: 'Heartbeats of these nodes use the other networks only; add them if they are on this one.',
  },
  'HF-CONFIG-038': {
    sentence: 'lan "{lan}" and lan "{other}" both have command="on"',
    hint: 'Commands use one network; keep one of them.',
  },
  'HF-CONFIG-039': {
    sentence: 'lan "{lan}" has command="on" and does not hold {missing}',
    hint: 'The network of commands must hold all nodes.',
  },
  'HF-CONFIG-040': {
    sentence: 'more than {limit} nodes',
    hint: 'Split them into several clusters.',
  },
  'HF-CONFIG-041': {
    sentence: 'more than {limit} lans',
    hint: 'Two or three networks are enough.',
  },
  'HF-CONFIG-042': {
    sentence: 'pulse="{value}" is outside 10ms to 10s',
    hint: 'The default is 50ms; `holdfast timing` shows what follows from it.',
  },
  'HF-CONFIG-043': {
    sentence: 'slost_count="{value}" is outside 2 to 1000',
    hint: 'One lost packet must not make a node suspect; the default is 4.',
  },
  'HF-CONFIG-044': {
    sentence: 'lease {lease} ms is not shorter than pulse × slost_count = {suspect} ms',
    hint: 'A virtual IP must be silent before another server answers for it; leave lease out for ¾ of that time.',
  },
  'HF-CONFIG-045': {
    sentence: 'lease {lease} ms is shorter than 1.5 × pulse = {least} ms',
    hint: 'Each heartbeat renews the lease; a single late one must not silence the server.',
  },
  'HF-CONFIG-046': {
    sentence: 'agent_deadline="{value}" is outside 500ms to 10m',
    hint: 'The default is 5s.',
  },
  'HF-CONFIG-047': {
    sentence: '{attribute}="{value}" of node "{node}" is {family}; lan "{lan}" began with {other}',
    hint: 'One <lan> is of one family; write IPv4 and IPv6 as two.',
  },
  'HF-CONFIG-048': {
    sentence: 'node "{node}" has the loopback address {addr}',
    hint: 'Other servers cannot reach it; fine only for a try-out on one machine.',
  },
  'HF-CONFIG-049': {
    sentence: '{attribute} of <{element}> is ignored: {reason}',
    hint: 'Remove it.',
  },
  'HF-CONFIG-050': {
    sentence: 'pulse × slost_count = {suspect} ms is longer than 5 minutes',
    hint: 'A failure would go unnoticed that long; lower one of them.',
  },
  'HF-CONFIG-051': {
    sentence: 'the names "{name}" and "{other}" of {kind} differ only in upper and lower case',
    hint: 'Write the name the same way everywhere.',
  },
  // userconfig.xml: the module.
  'HF-CONFIG-060': {
    sentence:
      'without <arbiter> in cluster.xml a mode="mirror" is run by hand: nothing is taken over by itself',
    hint: 'Add an <arbiter> to cluster.xml, or run `holdfast prim` on one server and `holdfast second` on the other.',
  },
  'HF-CONFIG-061': {
    sentence: '<{element}> belongs to mode="{mode}", this module is mode="{own}"',
    hint: 'Remove <{element}>.',
  },
  'HF-CONFIG-062': {
    sentence: 'module name "{name}" cannot be used',
    hint: 'A module name has 1 to 32 letters, digits, "_" and "-", and begins with a letter.',
  },
  'HF-CONFIG-063': {
    sentence:
      '{attribute} of <{element}> is ignored: detection is one per node; set it in cluster.xml',
    hint: 'Remove it here.',
  },
  'HF-CONFIG-064': {
    sentence: 'there is no lan "{name}" in cluster.xml{suggestion}',
    hint: 'Networks of cluster.xml: {allowed}.',
  },
  'HF-CONFIG-065': {
    sentence: 'no <user>: the scripts of this module are never run',
    hint: 'Add <user/> when the module has scripts.',
  },
  'HF-CONFIG-066': {
    sentence: '<errd> needs <user>',
    hint: 'Add <user/>.',
  },
  'HF-CONFIG-067': {
    sentence: '<{element}> is read and checked, but not acted on here in this version',
    hint: 'Nothing to do; do not rely on it yet.',
  },
  'HF-CONFIG-068': {
    sentence: '<{element}> "{name}" is defined twice, first on line {first}',
    hint: 'Give each its own name.',
  },
  'HF-CONFIG-069': {
    sentence: 'variable "{name}" cannot be set: {reason}',
    hint: 'Choose another name.',
  },
  'HF-CONFIG-070': {
    sentence: '{attribute}="{value}" of <{element}> leaves the folder bin/ of the module',
    hint: 'Write a path below bin/, without a leading "/" and without "..".',
  },
  'HF-CONFIG-071': {
    sentence: '<ready kind="{kind}"> needs the attribute "{attribute}"',
    hint: 'Say what to ask: {attribute}="…".',
  },
  'HF-CONFIG-072': {
    sentence: '{attribute}="{value}" of <{element}> is outside {low} to {high}',
    hint: 'Correct the value.',
  },
  'HF-CONFIG-073': {
    sentence: 'path="{value}" of <ready kind="http"> must begin with "/" and have no blanks',
    hint: 'Write the path of the request, such as /health.',
  },
  'HF-CONFIG-074': {
    sentence: 'scriptcontrol is ignored: <ready> of <farm> takes its place',
    hint: 'Write <ready kind="tcp" port="…"/> in <farm>: the virtual IP opens only when the application answers.',
  },
  'HF-CONFIG-075': {
    sentence: 'when="{value}" of <{element}> has no meaning in mode="{mode}"',
    hint: 'Use both (while the application runs) or pre (always).',
  },
  'HF-CONFIG-076': {
    sentence: '{attribute} of <{element}> has no meaning in mode="{mode}" and is ignored',
    hint: 'Remove it.',
  },
  'HF-CONFIG-077': {
    sentence: '{attribute} of <ready kind="{kind}"> has no meaning and is ignored',
    hint: 'Remove it, or choose another kind.',
  },
  'HF-CONFIG-078': {
    sentence: 'two modules, "{name}" and "{other}", {reason}',
    hint: 'Change one of them.',
  },
  'HF-CONFIG-079': {
    sentence: '"{value}" is not a regular expression: {reason}',
    hint: 'Write a POSIX extended regular expression.',
  },
  // userconfig.xml: virtual IPs and load balancing.
  'HF-CONFIG-080': {
    sentence: 'virtual IP {addr} is defined twice, first on line {first}',
    hint: 'Remove one of them.',
  },
  'HF-CONFIG-081': {
    sentence: 'virtual IP {addr} is the address of node "{node}"',
    hint: 'A virtual IP is an address that no server has; take a free one of the same network.',
  },
  'HF-CONFIG-082': {
    sentence: 'netmask="{value}" is not a mask or prefix length for {addr}',
    hint: 'Write a prefix length, or for IPv4 a mask such as 255.255.255.0.',
  },
  'HF-CONFIG-083': {
    sentence: 'virtual IP {addr} is the {what} address of its network {addr}/{prefix}',
    hint: 'Take another address, or correct netmask.',
  },
  'HF-CONFIG-084': {
    sentence: 'where="one_side_alias" of {addr}: in a farm the address is on every server',
    hint: 'Write where="alias", or leave it out.',
  },
  'HF-CONFIG-085': {
    sentence: '<real_interface> is for a mirror; a farm has <virtual_interface>',
    hint: 'Write <virtual_interface type="vmac_invisible"> in its place.',
  },
  'HF-CONFIG-086': {
    sentence: 'addr="{value}" of <virtual_interface>: {reason}',
    hint: 'Leave it out for 5a:fe: and the virtual IP in hexadecimal.',
  },
  'HF-CONFIG-087': {
    sentence: 'addr of <virtual_interface type="vmac_directed"> has no meaning',
    hint: 'Remove it: each server answers with its own MAC address.',
  },
  'HF-CONFIG-089': {
    sentence: 'more than {limit} {what} in one module',
    hint: 'Split the module.',
  },
  'HF-CONFIG-090': {
    sentence: 'there is no node "{name}" in cluster.xml{suggestion}',
    hint: 'Nodes of cluster.xml: {allowed}.',
  },
  'HF-CONFIG-091': {
    sentence: 'all powers of group "{name}" are 0: nobody would answer',
    hint: 'Give one server at least power 1.',
  },
  'HF-CONFIG-092': {
    sentence: 'virtual_addr="{value}" of <rule> is not a virtual IP of this module',
    hint: 'Virtual IPs of this module: {allowed}; or * for all.',
  },
  'HF-CONFIG-093': {
    sentence: 'port="{value}" of <rule>: {reason}',
    hint: 'Write a port from 1 to 65535, a range such as 8000-8099, or *.',
  },
  'HF-CONFIG-094': {
    sentence: 'port="{value}" of <rule proto="{proto}">: {proto} has no ports',
    hint: 'Leave port out.',
  },
  'HF-CONFIG-095': {
    sentence: '<rule proto="arp"> needs a virtual IP with type="vmac_directed"',
    hint: 'Remove the rule: in vmac_invisible every server answers with the MAC address of the farm.',
  },
  'HF-CONFIG-096': {
    sentence: 'filter="{filter}" does not go with proto="{proto}": {reason}',
    hint: 'Write filter="on_addr".',
  },
  'HF-CONFIG-097': {
    sentence:
      'filter="on_ipid" with the IPv6 virtual IP {addr}: IPv6 packets have no identification',
    hint: 'Name an IPv4 address in virtual_addr, or write filter="on_port".',
  },
  'HF-CONFIG-098': {
    sentence: 'this rule overlaps the one on line {other} and shares the clients differently',
    hint: 'Let the ports or the virtual IPs of the two differ, or put them in one group with one filter.',
  },
  'HF-CONFIG-099': {
    sentence: 'virtual IP {addr} with type="vmac_directed" has no rule proto="arp"',
    hint: 'Add <rule virtual_addr="{addr}" proto="arp" filter="on_addr"/> to the group that shares its clients.',
  },
  'HF-CONFIG-100': {
    sentence: 'no rule balances virtual IP {addr}: its traffic is dropped on every server',
    hint: 'Add a <rule> for it to a <group>.',
  },
  'HF-CONFIG-101': {
    sentence: '<{element}> in mode="light": there are no other servers to share with',
    hint: 'Remove it, or write mode="farm".',
  },
  'HF-CONFIG-102': {
    sentence: '<vip> in mode="farm" has no <virtual_interface>',
    hint: 'Add <interface_list> with <virtual_interface> and its <virtual_addr>, or remove <vip>.',
  },
  'HF-CONFIG-103': {
    sentence: 'device "{name}" is described twice, first on line {first}',
    hint: 'Put both virtual interfaces of different type on different devices, or merge them.',
  },
  'HF-CONFIG-104': {
    sentence: 'modules {names} have {count} {what} together; the filter of {place} holds {limit}',
    hint: 'Remove some, or put a module on another device with <interface name="…">.',
  },
  'HF-CONFIG-105': {
    sentence: '<loadbalancing_list> in mode="mirror": the primary server answers all clients',
    hint: 'Remove it, or write mode="farm".',
  },
  'HF-CONFIG-106': {
    sentence: '<virtual_interface> is for a farm; a mirror has <real_interface>',
    hint: 'Write <real_interface> in its place: the primary server answers with its own MAC address.',
  },
  'HF-CONFIG-107': {
    sentence: 'where="alias" of {addr}: in a mirror the address is on the primary server only',
    hint: 'Write where="one_side_alias", or leave it out.',
  },
  'HF-CONFIG-108': {
    sentence: '<vip> in mode="mirror" has no <real_interface>',
    hint: 'Add <interface_list> with <real_interface> and its <virtual_addr>, or remove <vip>.',
  },
  // userconfig.xml: mirrors.
  'HF-CONFIG-110': {
    sentence: 'mode="mirror" needs <{element}>',
    hint: '<heart> names the networks between the two servers, <rfs> the directories that are replicated.',
  },
  'HF-CONFIG-111': {
    sentence: 'timeout = {timeout} ms is not longer than pulse = {pulse} ms',
    hint: 'One late heartbeat must not make a server count as dead.',
  },
  'HF-CONFIG-112': {
    sentence: '<{element}> needs the attribute "name"',
    hint: 'Name a network of cluster.xml; addresses in <server>, as SafeKit had them before 7.2, are not read.',
  },
  'HF-CONFIG-113': {
    sentence: 'dir="{value}" of <replicated>: {reason}',
    hint: 'Write the path of the directory from "/" on, as `realpath` prints it.',
  },
  'HF-CONFIG-114': {
    sentence: 'dir="{value}" and "{other}" on line {first} are the same or lie in one another',
    hint: 'Replicate the outer one alone.',
  },
  'HF-CONFIG-115': {
    sentence: 'dir="{value}" and {own}, a folder of Holdfast itself, lie in one another',
    hint: 'Each server keeps its own; put the data of the application elsewhere.',
  },
  'HF-CONFIG-116': {
    sentence: '<flow> is of former versions of SafeKit',
    hint: 'Write ident="flow" at the <heartbeat> of that network in its place.',
  },
  'HF-CONFIG-117': {
    sentence: 'network "{name}", on which directories are replicated, has {count} servers, not two',
    hint: 'A mirror is on two servers: give ident="flow" to the <heartbeat> of a <lan> that holds just these.',
  },
  'HF-CONFIG-118': {
    sentence: '<notreplicated> needs either path or regexpath',
    hint: 'path names a file or folder, regexpath matches relative paths; write two elements for both.',
  },
  'HF-CONFIG-119': {
    sentence: '{attribute}="{value}" of <{element}> is not a path below the directory',
    hint: 'Write it relative to dir, without a leading "/" and without ".".',
  },
  'HF-CONFIG-120': {
    sentence: '<notreplicated> of "{value}" differ from those of "{other}" on line {first}',
    hint: 'In this version one list counts for all directories of a module: write the same into each, or make two modules.',
  },
  'HF-CONFIG-121': {
    sentence: 'node "{name}" of <distant> is one of the two servers of the mirror',
    hint: 'A distant copy is on a further server: name another node of cluster.xml.',
  },
  'HF-CONFIG-122': {
    sentence: 'network "{lan}" of <distant node="{name}"> does not hold {missing}',
    hint: 'Either server of the mirror may be the primary one: name a network of cluster.xml that holds both and the node of the distant copy.',
  },
  'HF-CONFIG-123': {
    sentence:
      'suspect = {suspect} ms of <heart> is shorter than what cluster.xml detects: pulse {pulse} ms × slost_count {count} = {least} ms',
    hint: 'Choose a longer profile with timing, or lower pulse or slost_count of cluster.xml; `holdfast timing` shows what follows.',
  },
  'HF-CONFIG-124': {
    sentence: 'the times of <heart> do not fit together: {reason}',
    hint: 'Leave suspect and lease out and choose a profile with timing; a lease is 1.5 times suspect there.',
  },
  'HF-CONFIG-125': {
    sentence:
      'defaultprim="{name}" is neither alone, lastprim nor a node of cluster.xml{suggestion}',
    hint: 'Nodes of cluster.xml: {allowed}.',
  },
  'HF-CONFIG-126': {
    sentence: 'defaultprim="{name}" is not one of the two servers of the mirror',
    hint: 'Name one of the two servers on the network of replication, or write alone or lastprim.',
  },
  'HF-CONFIG-127': {
    sentence: 'the rules of <failover> cannot be read: {reason}',
    hint: 'Write each rule as `label: if (class.name == down) then action();`, with stop, stopstart, wait, restart or swap.',
  },
} as const;
