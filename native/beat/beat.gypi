# beat.node: the agent's side. holdfastd: the process that hosts the heartbeat thread and keeps the
# agent running; its C++ run-time is linked in, so that it needs nothing but libc.
{
  'variables': {
    'beat_engine_files': [
      'engine.cc',
      'engine_receive.cc',
      'engine_report.cc',
      'wire.cc',
      '../common/sha256.cc',
    ],
  },
  'targets': [
    {
      'target_name': 'beat',
      'includes': ['../addon.gypi'],
      'sources': ['addon.cc'],
    },
    {
      'target_name': 'holdfastd',
      'type': 'executable',
      'includes': ['../common.gypi'],
      'sources': [
        '<@(beat_engine_files)',
        'control.cc',
        'holdfastd.cc',
        'keeper.cc',
        'notify.cc',
        'process.cc',
        'sockets.cc',
        'thread.cc',
      ],
      'ldflags': ['-static-libstdc++', '-static-libgcc'],
    },
  ],
}
