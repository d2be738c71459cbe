# holdfast-witness: the register of an arbiter, on a machine of its own. Its C++ run-time is linked in;
# it needs libc and the system's OpenSSL (TLS 1.3).
{
  'targets': [
    {
      'target_name': 'holdfast-witness',
      'type': 'executable',
      'includes': ['../common.gypi'],
      'sources': [
        'clusters.cc',
        'connection.cc',
        'main.cc',
        'server.cc',
        'store.cc',
        '../common/sha256.cc',
        '../common/tls_identity.cc',
      ],
      'libraries': ['-lssl', '-lcrypto'],
      'ldflags': ['-static-libstdc++', '-static-libgcc'],
    },
  ],
}
