/** Errors of mirrors: commands on them, and the replication engine as the agent meets it. */
export const mirrorErrors = {
  'HF-MIRROR-001': {
    sentence: 'the replication engine of {module} did not start: {reason}',
    hint: 'Its log is {log}.',
    http: 500,
  },
  'HF-MIRROR-002': {
    sentence: 'the replication engine of {module} does not answer',
    hint: 'It is started again by itself; `holdfast status -m {module}` says when it is back.',
    http: 503,
  },
  'HF-MIRROR-003': {
    sentence: 'the replication engine of {module} refused {verb}: {reason} ({code})',
    hint: '`holdfast log` and `holdfast why -m {module}` say what came before.',
    http: 409,
  },
  'HF-MIRROR-004': {
    sentence: 'module {module} is no mirror: {verb} is not for it',
    hint: 'prim, second and verify are for modules with mode="mirror"; use `holdfast start -m {module}`.',
    http: 409,
  },
  'HF-MIRROR-005': {
    sentence:
      'module {module} is run by hand, since cluster.xml has no <arbiter>: {verb} is not for it',
    hint: 'Run `holdfast prim -m {module}` on the server with the newer data, `holdfast second -m {module}` on the other.',
    http: 409,
  },
  'HF-MIRROR-006': {
    sentence: 'module {module} is {state} here: {verb} is not possible now',
    hint: 'Run `holdfast stop -m {module}` first; `holdfast status -m {module}` shows both servers.',
    http: 409,
  },
  'HF-MIRROR-007': {
    sentence: 'module {module} is {state} on {node}: it cannot be {verb} here as well',
    hint: 'A mirror has one primary and one secondary server. Run `holdfast stop -m {module} -H {node}` first.',
    http: 409,
  },
  'HF-MIRROR-008': {
    sentence:
      'module {module} waits for {node}; going on alone means that what is written from now on is on this server only',
    hint: 'Be sure that {node} is not the primary server of {module}, then run `holdfast prim -m {module} --alone`. Until {node} has all data again, it must not become primary.',
    http: 409,
  },
  'HF-MIRROR-009': {
    sentence: 'this server ({node}) is not on network "{lan}", on which {module} is replicated',
    hint: 'Run the module on the two servers of that network, or name another one by <heartbeat ident="flow">; a further server is named by <distant>.',
    http: 409,
  },
  'HF-MIRROR-010': {
    sentence: '{path} does not exist, and <tocheck> says that it must',
    hint: 'Mount the file system of {dir}, or copy the data there first.',
    http: 409,
  },
  'HF-MIRROR-011': {
    sentence:
      'verify runs on the primary server with its secondary connected; {module} is {state} here',
    hint: 'Run it where the module is PRIM: `holdfast verify -m {module} -H NODE`.',
    http: 409,
  },
  'HF-MIRROR-012': {
    sentence: 'a comparison of {module} is running',
    hint: 'Wait for its end; `holdfast status -m {module} --detail` shows how far it is.',
    http: 409,
  },
  'HF-MIRROR-013': {
    sentence: 'the comparison of {module} was cut off: {reason}',
    hint: 'Run it again once both servers are connected.',
    http: 409,
  },
  'HF-MIRROR-014': {
    sentence: '{module} uses port {own} here and port {other} on {node}',
    hint: 'Its number differs, as modules were installed in another order: set <rfs port="…"> in userconfig.xml, the same on all servers of the mirror.',
    http: 409,
  },
  'HF-MIRROR-015': {
    sentence: '{module} did not become {role}: {reason}',
    hint: '`holdfast why -m {module}` and `holdfast log -m {module}` say more.',
    http: 409,
  },
  'HF-MIRROR-016': {
    sentence:
      'both servers of {module} took changes while they were apart: {own} here, {other} on {node}, after change {common}',
    hint: 'Both are as they were. Choose: `holdfast stop -m {module}`, then `holdfast second discard -m {module}` on the server whose changes are to be taken back (its files are kept in the quarantine).',
    http: 409,
  },
  'HF-MIRROR-017': {
    sentence: '{node} has {other} changes of {module} that this server lacks, and lacks none',
    hint: 'Stop the module on both servers, then `holdfast prim -m {module}` on {node} and `holdfast second -m {module}` here.',
    http: 409,
  },
  'HF-MIRROR-018': {
    sentence: 'the copies of {module} here and on {node} have no history in common',
    hint: 'On the server whose content is to be replaced: `holdfast stop -m {module}`, then `holdfast second fullsync -m {module}` (its files are kept in the quarantine).',
    http: 409,
  },
  'HF-MIRROR-019': {
    sentence: '{module}: {files} files that only this server had are in the quarantine {folder}',
    hint: '`holdfast quarantine list -m {module}` shows them; nothing there is ever removed by itself.',
    http: 409,
  },
  'HF-MIRROR-020': {
    sentence:
      '{module}: the copy on this server is again what it was at change {lsn} of epoch {epoch}, since its resynchronisation did not end',
    hint: 'It is whole, and older than that of the other server; `holdfast second -m {module}` brings it up to date.',
    http: 409,
  },
  'HF-MIRROR-021': {
    sentence: 'there is no quarantine {folder} of {module} on this server',
    hint: '`holdfast quarantine list -m {module}` shows those that there are.',
    http: 404,
  },
  'HF-MIRROR-022': {
    sentence: '{path} is not in the quarantine {folder} of {module}',
    hint: '`holdfast quarantine list {folder} -m {module}` shows what is in it.',
    http: 404,
  },
  'HF-MIRROR-023': {
    sentence: 'files come back into {module} on its primary server alone; it is {state} here',
    hint: 'Give a folder outside of it: `holdfast quarantine restore … --to FOLDER`; or make this server the primary first.',
    http: 409,
  },
  'HF-MIRROR-024': {
    sentence: '{path} cannot be restored: {reason}',
    hint: 'Nothing was written over. Move what is there, or restore to a folder: `--to FOLDER`.',
    http: 409,
  },
  'HF-MIRROR-025': {
    sentence: 'the directories of {module} cannot be reached: {reason}',
    hint: 'Run the command as root on the server itself; `holdfast status -m {module}` shows the module.',
    http: 409,
  },
  'HF-MIRROR-026': {
    sentence:
      'the copy of {module} on this server ({node}) is a distant one, which may lack the last changes: {behind}',
    hint: 'Be sure that {module} runs on none of {servers}, and that they are not to come back first. Then `holdfast stop -m {module}` and `holdfast prim -m {module} --force` here: what this copy lacks is lost.',
    http: 409,
  },
  'HF-MIRROR-027': {
    sentence: 'the distant copy of {module} on {node} has changes of its own',
    hint: 'Nothing was touched. To give it the content of the primary server: on {node} `holdfast stop -m {module}`, then `holdfast second discard -m {module}`, or `second fullsync` where that does not help (files that it alone had are kept in the quarantine).',
    http: 409,
  },
  'HF-MIRROR-028': {
    sentence:
      'the distant copy of {module} on {node} knows a newer epoch than this server: it was primary itself',
    hint: 'Nothing was touched. If this server is to stay the primary one, `holdfast stop -m {module}` and `holdfast prim -m {module}` here begin an epoch that is newer; what the copy did is given up by `holdfast second discard -m {module}` there.',
    http: 409,
  },
  'HF-MIRROR-029': {
    sentence: '{module} cannot use its directories: {reason}',
    hint: 'Mount the file system of the directory and try again. Where the data was moved to another disk or restored: `holdfast second fullsync -m {module}` here, while the other server is primary, compares it and gets what differs; where no other server has the data, `holdfast primforce -m {module}` (run by hand: `holdfast prim -m {module} --force`) makes what is there the data.',
    http: 409,
  },
  'HF-MIRROR-040': {
    sentence: '{module} did not carry out {verb}: {reason}',
    hint: '`holdfast why -m {module}` on both servers says what stands against it.',
    http: 409,
  },
  'HF-MIRROR-041': {
    sentence: '{module} has no resource {resource} that can be set now',
    hint: 'Resources of `<custom>` and `<splitbrain exec>` alone are set, while their checker runs; `holdfast status -m {module} --json` shows all.',
    http: 409,
  },
} as const;
