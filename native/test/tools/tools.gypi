{
  'targets': [
    {
      # Whether marks cover all in which two servers differ. For test/replica; not installed.
      'target_name': 'replica_marked',
      'type': 'executable',
      'includes': ['../../common.gypi'],
      'sources': [
        'replica_marked.cc', '../../replica/disk.cc', '../../replica/ids.cc',
        '../../replica/marks.cc', '../../replica/marks_file.cc', '../../replica/marks_generation.cc',
        '../../replica/record.cc',
      ],
      'ldflags': ['-pthread'],
    },
  ],
}
