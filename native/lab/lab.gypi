{
  'targets': [
    {
      # What the lab needs near the kernel: namespaces, delay relay, load, capture. Not part of an installed server.
      'target_name': 'lab_tool',
      'type': 'executable',
      'includes': ['../common.gypi'],
      'sources': [
        'main.cc', 'util.cc', 'host.cc', 'device.cc', 'relay.cc', 'load.cc', 'load_tcp.cc', 'load_udp.cc',
        'serve.cc', 'sniff.cc', 'write.cc',
      ],
    },
    {
      # A directory mounted over itself by the file system server, not replicated: for trying and measuring.
      'target_name': 'replica_mount',
      'type': 'executable',
      'includes': ['../common.gypi'],
      'sources': [
        'replica_mount.cc',
        '../replica/core.cc', '../replica/finish.cc', '../replica/ids.cc', '../replica/intents.cc', '../replica/locks.cc',
        '../replica/make.cc', '../replica/ops_attr.cc', '../replica/ops_data.cc', '../replica/ops_dir.cc',
        '../replica/ops_names.cc', '../replica/ops_xattr.cc', '../replica/publish.cc', '../replica/record.cc',
        '../replica/server.cc', '../replica/session.cc', '../replica/skip.cc', '../replica/tree.cc',
      ],
      'ldflags': ['-pthread'],
    },
  ],
}
