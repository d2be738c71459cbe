# beat.node: the agent's side. holdfastd: the process that hosts the heartbeat thread and keeps the
# agent running; its C++ run-time is linked in, so that it needs nothing but libc.
{
  'variables': {
    'beat_files': [
      'control.cc',
      'engine.cc',
      'engine_lease.cc',
      'engine_receive.cc',
      'engine_report.cc',
      'notify.cc',
      'sockets.cc',
      'thread.cc',
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
        '<@(beat_files)',
        'holdfastd.cc',
        'keeper.cc',
        'process.cc',
      ],
      'ldflags': ['-static-libstdc++', '-static-libgcc'],
    },
  ],
  'conditions': [
    ['native_tests==1', {
      'targets': [
        {
          'target_name': 'beat_test',
          'type': 'executable',
          'includes': ['../common.gypi'],
          'defines': ['DOCTEST_CONFIG_NO_EXCEPTIONS_BUT_WITH_ALL_ASSERTS'],
          'sources': [
            '<@(beat_files)',
            '../test/main.cc',
            '../test/beat_attack.cc',
            '../test/beat_detector.cc',
            '../test/beat_engine.cc',
            '../test/beat_keeper.cc',
            '../test/beat_lease.cc',
            '../test/beat_lease_world.cc',
            '../test/beat_sha256.cc',
            '../test/beat_shared.cc',
            '../test/beat_wire.cc',
          ],
        },
      ],
    }],
  ],
}
