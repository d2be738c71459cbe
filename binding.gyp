# One target per engine, so that a missing kernel library stops one engine and not the others.
# Each folder's own .gypi lists its sources; addon.cc is the only file there that sees napi.h.
{
  'variables': {
    'native_tests%': 0,
    'sanitize%': '',
  },
  'includes': [
    'native/filter/filter.gypi',
    'native/beat/beat.gypi',
    'native/link/link.gypi',
    'native/replica/replica.gypi',
    'native/witness/witness.gypi',
    'native/lab/lab.gypi',
    'native/lab/replica/replica_tool.gypi',
    'native/test/tools/tools.gypi',
  ],
}
