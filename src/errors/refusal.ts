/**
 * What a mirror that decides for itself says of its decisions, each sentence with a code and the next step.
 * src/core/mirror*.ts make the sentences; they are matched with these from top to bottom, so a more
 * particular one stands before a more general one.
 */
export const refusalErrors = {
  // A secondary that does not take over.
  'HF-MIRROR-101': {
    sentence: 'not taking over because failover is off',
    hint: '`holdfast failover on -m {module}` lets it; `holdfast prim -m {module}` here makes it primary once.',
    http: 409,
  },
  'HF-MIRROR-102': {
    sentence:
      'not taking over ({cause}) because this copy is not up to date: waits for {node}, which has the up-to-date data (epoch {epoch})',
    hint: 'Start {node}: it alone has all data. Only where it is lost for good: `holdfast primforce -m {module}` here says what is given up, and asks.',
    http: 409,
  },
  'HF-MIRROR-103': {
    sentence: 'not taking over ({cause}) because this copy is not up to date: it is {copy}',
    hint: 'Start the other server. Only where it is lost for good: `holdfast primforce -m {module}` here says what is given up, and asks.',
    http: 409,
  },
  'HF-MIRROR-104': {
    sentence: 'not taking over ({cause}) because {reason}',
    hint: 'Mend what is named; it takes over by itself then, without an order.',
    http: 409,
  },
  // A server that waits, and does not become primary.
  'HF-MIRROR-110': {
    sentence: 'waits: nobody was primary yet; run `prim` on the server whose data is the right one',
    hint: 'Only at the very first start: `holdfast prim -m {module}` on the server with the data, or on either where both directories are empty.',
    http: 409,
  },
  'HF-MIRROR-111': {
    sentence: "waits: the arbiter's register is empty, and {node} knows epoch {epoch}",
    hint: 'Start {node}, which makes the register anew as primary. Only where it is lost for good: `holdfast primforce -m {module}` here.',
    http: 409,
  },
  'HF-MIRROR-112': {
    sentence:
      "waits for the arbiter: the arbiter's register is empty, and this server knows epoch {epoch}",
    hint: 'The arbiter has lost its data, or it is another one: see `<arbiter>` in cluster.xml. A primary that runs makes the register anew by itself; where none does, `holdfast primforce -m {module}` on the server with the newest data.',
    http: 409,
  },
  'HF-MIRROR-113': {
    sentence:
      "waits for the arbiter: the arbiter's register is an abandoned one ({own} of {newest})",
    hint: 'A former arbiter has come back: take it away, and start the one that both servers last used.',
    http: 409,
  },
  'HF-MIRROR-114': {
    sentence:
      "waits for the arbiter: the arbiter's register is older than what this server knows: epoch {epoch} of {known}",
    hint: 'The arbiter was put back to an older state. An arbiter that was restored must come back empty; then a primary that runs makes the register anew, or `holdfast primforce -m {module}` on the server with the newest data does.',
    http: 409,
  },
  'HF-MIRROR-115': {
    sentence:
      "waits for the arbiter: the arbiter's register was changed by another hand in epoch {epoch}",
    hint: 'Nobody but the two servers may write there: look for a second cluster with the same arbiter. `holdfast primforce -m {module}` on the server with the newest data makes it anew.',
    http: 409,
  },
  'HF-MIRROR-116': {
    sentence: 'waits for the arbiter: {reason}',
    hint: 'Bring the arbiter back: it is asked again and again. Without it nobody becomes primary; where it is lost for good, name another <arbiter> in cluster.xml, or take it out and run the mirror by hand.',
    http: 503,
  },
  'HF-MIRROR-117': {
    sentence: 'waits for {node} to be primary',
    hint: 'It was ordered to be secondary: `holdfast start -m {module}` on {node}, or here to let it decide by itself.',
    http: 409,
  },
  'HF-MIRROR-118': {
    sentence:
      'waits for {node}, which has the up-to-date data (epoch {epoch}); `primforce` would give up what only the other has',
    hint: 'Start {node}. Only where it is lost for good: `holdfast primforce -m {module}` here says what is given up, and asks.',
    http: 409,
  },
  'HF-MIRROR-119': {
    sentence: 'waits for {node}, which has the up-to-date data (epoch {epoch}): this server {copy}',
    hint: 'Start {node}: this copy is brought up to date then. Only where it is lost for good: `holdfast primforce -m {module}` here.',
    http: 409,
  },
  'HF-MIRROR-120': {
    sentence: 'waits for {node}, which has the up-to-date data (epoch {epoch})',
    hint: 'Start {node}: it becomes primary, and this server follows. Only where it is lost for good: `holdfast primforce -m {module}` here says what is given up, and asks.',
    http: 409,
  },
  'HF-MIRROR-121': {
    sentence: 'waits for `primforce`: this server alone had the data of epoch {epoch}, and {copy}',
    hint: 'The copy was damaged while it was the only one. Restore the data from a backup if there is one, then `holdfast primforce -m {module}` here.',
    http: 409,
  },
  'HF-MIRROR-122': {
    sentence: 'not becoming primary: its copy is {copy}',
    hint: 'Start the other server, or order `holdfast primforce -m {module}` where this copy is the only one.',
    http: 409,
  },
  'HF-MIRROR-123': {
    sentence: 'not becoming primary: {node} is {state}',
    hint: 'There is a primary: this server follows it. To move it here, `holdfast swap -m {module}`.',
    http: 409,
  },
  'HF-MIRROR-124': {
    sentence: 'not becoming primary because {reason}',
    hint: 'Mend what is named; it goes on by itself then.',
    http: 409,
  },
  'HF-MIRROR-125': {
    sentence: 'Failover-off configured: waits for `prim` or the primary',
    hint: '`holdfast prim -m {module}` here makes this server primary; `holdfast failover on -m {module}` lets it decide from now on.',
    http: 409,
  },
  'HF-MIRROR-126': {
    sentence: 'waits for `start`: swap nosync',
    hint: 'It was moved away by `swap nosync`: `holdfast start -m {module}` here makes it the secondary again.',
    http: 409,
  },
  'HF-MIRROR-127': {
    sentence: 'waits for `start`: its state cannot be kept',
    hint: 'The disk of /var/lib/holdfast does not take what must be kept: make room or mend it, then `holdfast start -m {module}`.',
    http: 409,
  },
  'HF-MIRROR-128': {
    sentence: 'waits: {reason}',
    hint: 'A checker holds it: mend what is named; it goes on by itself then.',
    http: 409,
  },
  // Orders that are not carried out.
  'HF-MIRROR-130': {
    sentence: 'not carrying out {verb}: the copy of {node} is not up to date',
    hint: 'Wait until {node} is SECOND (Ready): `holdfast status -m {module}` shows how far it is.',
    http: 409,
  },
  'HF-MIRROR-131': {
    sentence: 'not carrying out {verb}: {node} is not in reach',
    hint: 'Start the agent of {node}, or mend the network between the two; `holdfast status` shows it.',
    http: 409,
  },
  'HF-MIRROR-132': {
    sentence: 'not carrying out {verb}: {node} would not become primary: {reason}',
    hint: 'Mend that on {node} first: `holdfast why -m {module} -H {node}`.',
    http: 409,
  },
  'HF-MIRROR-133': {
    sentence: 'not carrying out {verb}: it is not serving as primary',
    hint: '`holdfast status -m {module}` shows where it is; wait until it is PRIM (Ready).',
    http: 409,
  },
  'HF-MIRROR-134': {
    sentence: 'not carrying out {verb}: its application is not running',
    hint: '`holdfast start -m {module}` starts it.',
    http: 409,
  },
  'HF-MIRROR-136': {
    sentence: 'not carrying out prim: it is SECOND ({readiness})',
    hint: 'The other server is primary. `holdfast swap -m {module}` brings the application here.',
    http: 409,
  },
  'HF-MIRROR-135': {
    sentence: 'not carrying out {verb}: {reason}',
    hint: '`holdfast status -m {module}` shows where it is; `holdfast stop -m {module}` first, where it has another role.',
    http: 409,
  },
  // What holds for a moment, or for longer, while it runs.
  'HF-MIRROR-140': {
    sentence: 'synced writes wait for {node}',
    hint: 'For a moment only: as soon as the arbiter has agreed it goes on alone. Where it lasts, the arbiter does not answer.',
    http: 409,
  },
  'HF-MIRROR-141': {
    sentence: 'the address is silent: its lease ran out',
    hint: 'The other server was not heard, and the arbiter did not answer in time: bring either back.',
    http: 409,
  },
  'HF-MIRROR-142': {
    sentence: 'waits until the lease of {node} is surely over',
    hint: 'Nothing to do: `holdfast timing -m {module}` says how long that is (grace).',
    http: 409,
  },
  'HF-MIRROR-143': {
    sentence: 'waits for the application to answer',
    hint: 'The virtual IP opens when the health gate succeeds: `holdfast log -m {module}` shows what the application said. Where that takes longer than start_timeout of <ready>, its action follows.',
    http: 409,
  },
  'HF-MIRROR-144': {
    sentence: 'this copy has failed: stop it, then mend the disk',
    hint: '`holdfast stop -m {module}`; when the disk is whole again, `holdfast second fullsync -m {module}`.',
    http: 409,
  },
  'HF-MIRROR-145': {
    sentence: 'this copy is not up to date yet with {node}',
    hint: 'Wait: `holdfast status -m {module}` shows how far it is. Where it does not begin, `holdfast why -m {module} -H {node}` says what an operator must decide.',
    http: 409,
  },
  'HF-MIRROR-146': {
    sentence: 'failover is off: it will not take over from {node}',
    hint: '`holdfast failover on -m {module}` lets it take over.',
    http: 409,
  },
  'HF-MIRROR-147': {
    sentence: 'asks {node} for leave to go',
    hint: 'Nothing to do: it goes without after a moment.',
    http: 409,
  },
  'HF-MIRROR-148': {
    sentence: 'asks {node} who goes first',
    hint: 'Nothing to do: it goes first after a moment without an answer.',
    http: 409,
  },
  'HF-MIRROR-149': {
    sentence: '{reason}; service goes on, but no failure would be survived',
    hint: 'Bring the arbiter back before anything else fails: until then nobody takes over, and nobody goes on alone.',
    http: 503,
  },
  'HF-MIRROR-150': {
    sentence: 'the arbiter does not answer: {reason}',
    hint: 'Bring it back; it is asked again and again.',
    http: 503,
  },
  'HF-MIRROR-151': {
    sentence: "the arbiter's register {reason}",
    hint: 'It was lost, put back to an older state, or changed by another hand. A primary that runs makes it anew by itself; where none does, `holdfast primforce -m {module}` on the server with the newest data.',
    http: 409,
  },
  // What ended its service, or the start of it.
  'HF-MIRROR-160': {
    sentence: '{cause}, and the arbiter does not answer: the lease ran out',
    hint: 'Nobody could say who may serve, so nobody does. Bring the arbiter or the other server back: it goes on by itself.',
    http: 503,
  },
  'HF-MIRROR-161': {
    sentence: '{node} holds epoch {epoch}',
    hint: 'The other server is primary by a later record; this one follows it.',
    http: 409,
  },
  'HF-MIRROR-162': {
    sentence: 'the application does not answer: {reason}',
    hint: '`holdfast log -m {module}` shows what it said; what is done then is `action` of <ready>.',
    http: 409,
  },
  'HF-MIRROR-163': {
    sentence: 'its copy has failed: a file or the journal could not be written',
    hint: 'The disk is full or damaged: `holdfast stop -m {module}`, mend it, `holdfast second fullsync -m {module}`.',
    http: 409,
  },
  'HF-MIRROR-164': {
    sentence: 'its state cannot be kept: {reason}',
    hint: 'Make room on the disk of /var/lib/holdfast, or mend it; then `holdfast start -m {module}`.',
    http: 409,
  },
  'HF-MIRROR-165': {
    sentence: 'the replication engine is gone: {reason}',
    hint: 'It is started again by itself, within maxloop; /var/log/holdfast/replica-{module}.log says what happened.',
    http: 409,
  },
  'HF-MIRROR-166': {
    sentence: 'Action stop called by maxloop: {count} automatic actions within {seconds} s',
    hint: 'It was started again too often: `holdfast events -m {module}` shows why. Mend that, then `holdfast start -m {module}`.',
    http: 409,
  },
  'HF-MIRROR-167': {
    sentence: 'Action {action} called by {by}',
    hint: '`holdfast events -m {module}` shows what came before.',
    http: 409,
  },
  'HF-MIRROR-168': {
    sentence: '{script} failed: {reason}',
    hint: '`holdfast log -m {module}` shows what the script wrote.',
    http: 409,
  },
} as const;
