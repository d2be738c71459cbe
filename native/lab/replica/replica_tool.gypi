{
  'targets': [
    {
      # The programs that prove the replication engine: POSIX table, fsx-style checker, histories and
      # their check, comparison of trees. Not part of an installed server.
      'target_name': 'replica_tool',
      'type': 'executable',
      'includes': ['../../common.gypi'],
      'sources': [
        'main.cc', 'tool.cc', 'compare.cc', 'fsx.cc', 'tree.cc',
        'choose.cc', 'history.cc', 'log.cc', 'model.cc', 'operation.cc', 'perform.cc', 'prefix.cc',
        'snapshot.cc',
        'pull.cc', 'posix.cc', 'posix_access.cc', 'posix_acl.cc', 'posix_content.cc', 'posix_directory.cc',
        'posix_lock.cc', 'posix_map.cc', 'posix_name.cc', 'posix_open.cc', 'posix_rename.cc',
        'posix_special.cc', 'posix_time.cc', 'posix_util.cc', 'posix_xattr.cc',
      ],
      'ldflags': ['-pthread'],
    },
  ],
}
