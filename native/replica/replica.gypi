# holdfast-replica: holder and worker of one mirror's replication in one executable. Its C++ run-time
# is linked in; it needs libc and the system's OpenSSL (TLS 1.3), which the distribution keeps patched.
{
  'variables': {
    'replica_files': [
      'applier.cc',
      'changes.cc',
      'channel.cc',
      'check.cc',
      'disk.cc',
      'feed.cc',
      'ids.cc',
      'intake.cc',
      'journal.cc',
      'link.cc',
      'link_send.cc',
      'link_thread.cc',
      'names.cc',
      'orphanage.cc',
      'receiver.cc',
      'receiver_stream.cc',
      'record.cc',
      'ring.cc',
      'super.cc',
      'tls.cc',
      'tree.cc',
      'verify.cc',
      'waits.cc',
    ],
  },
  'targets': [
    {
      'target_name': 'holdfast-replica',
      'type': 'executable',
      'includes': ['../common.gypi'],
      'sources': [
        '<@(replica_files)',
      ],
      'libraries': ['-lssl', '-lcrypto'],
      'ldflags': ['-static-libstdc++', '-static-libgcc', '-pthread'],
    },
  ],
}
