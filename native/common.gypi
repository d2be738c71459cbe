# Flags that every native target shares.
{
  'cflags!': ['-fno-exceptions', '-fno-rtti', '-O3'],
  'cflags_cc!': ['-fno-exceptions', '-std=gnu++17', '-std=gnu++20'],
  'cflags': ['-O2', '-g', '-fvisibility=hidden', '-Wall', '-Wextra', '-Wshadow', '-Wconversion', '-Werror',
             '-I<(module_root_dir)/native'],
  'cflags_cc': ['-std=c++20', '-fno-exceptions'],
  'defines': ['_GNU_SOURCE'],
  'conditions': [
    ['sanitize!=""', {
      'cflags': ['-fsanitize=<(sanitize)', '-fno-omit-frame-pointer', '-fno-sanitize-recover=all'],
      'ldflags': ['-fsanitize=<(sanitize)'],
    }],
  ],
}
