# link.node: addresses, neighbours, announcements. link_test: its engine under doctest.
{
  'variables': {
    'link_engine_files': [
      'address.cc',
      'announce.cc',
      'engine.cc',
      'frames.cc',
      'monitor.cc',
      'netlink.cc',
      'notify.cc',
      'sockets.cc',
    ],
  },
  'targets': [
    {
      'target_name': 'link',
      'includes': ['../addon.gypi'],
      'sources': ['addon.cc', '<@(link_engine_files)'],
    },
  ],
  'conditions': [
    ['native_tests==1', {
      'targets': [
        {
          'target_name': 'link_test',
          'type': 'executable',
          'includes': ['../common.gypi'],
          'sources': ['../test/link_test.cc', '<@(link_engine_files)'],
        },
      ],
    }],
  ],
}
