{
  'variables': {
    # Shared by both BPF objects; the multiarch folder holds asm/types.h.
    'bpf_clang%': 'clang',
    'bpf_cflags': ['-O2', '-g', '-Wall', '-Wextra', '-Wno-unused-parameter', '-Werror', '-target', 'bpf', '-mcpu=v3'],
  },
  'targets': [
    {
      'target_name': 'filter_bpf',
      'type': 'none',
      'actions': [
        {
          'action_name': 'farm_bpf',
          'inputs': [
            'farm.bpf.c', 'farm_abi.h', 'farm_hash.h', 'farm_flow.bpf.h', 'farm_decide.bpf.h',
            'farm_neighbour.bpf.h',
          ],
          'outputs': ['<(PRODUCT_DIR)/farm.bpf.o'],
          'action': ['<(bpf_clang)', '<@(bpf_cflags)', '-I/usr/include/<!(gcc -print-multiarch)',
                     '-c', 'native/filter/farm.bpf.c', '-o', '<@(_outputs)'],
        },
        {
          'action_name': 'bench_bpf',
          'inputs': ['bench.bpf.c'],
          'outputs': ['<(PRODUCT_DIR)/filter_bench.bpf.o'],
          'action': ['<(bpf_clang)', '<@(bpf_cflags)', '-I/usr/include/<!(gcc -print-multiarch)',
                     '-c', 'native/filter/bench.bpf.c', '-o', '<@(_outputs)'],
        },
      ],
    },
    {
      'target_name': 'filter',
      'includes': ['../addon.gypi'],
      'dependencies': ['filter_bpf'],
      'sources': ['addon.cc', 'filter.cc', 'hook.cc', 'object.cc', 'pins.cc', 'rig.cc', 'sockets.cc'],
      'libraries': ['-lbpf'],
    },
  ],
}
