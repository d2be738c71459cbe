# link.node: addresses, neighbours, announcements. Its engine's tests: native/test/suites.json.
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
}
