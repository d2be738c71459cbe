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
  ],
}
