# Flags of an N-API addon: stable ABI, no C++ exceptions, node-addon-api as a system header (it is not -Wshadow clean).
{
  'includes': ['common.gypi'],
  'defines': ['NAPI_VERSION=9', 'NAPI_DISABLE_CPP_EXCEPTIONS', 'NODE_ADDON_API_DISABLE_DEPRECATED'],
  'cflags': ['-isystem<!(node -p "require(\'path\').dirname(require.resolve(\'node-addon-api/napi.h\'))")'],
}
