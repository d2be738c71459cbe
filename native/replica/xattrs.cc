#include "replica/xattrs.h"

#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "replica/record.h"

namespace holdfast::replica {
namespace {

/** The whole of a list or value whose size may grow between two calls. 0 or errno. */
template <typename Read>
int read_all(std::vector<char>& out, Read read) {
  for (;;) {
    const ssize_t size = read(nullptr, 0);
    if (size < 0) return errno;
    out.resize(static_cast<size_t>(size) + 64);
    const ssize_t got = read(out.data(), out.size());
    if (got < 0 && errno == ERANGE) continue;
    if (got < 0) return errno;
    out.resize(static_cast<size_t>(got));
    return 0;
  }
}

void append(std::vector<uint8_t>& out, const void* data, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  out.insert(out.end(), bytes, bytes + size);
}

}  // namespace

bool is_own_attribute(std::string_view name) {
  return name.starts_with("trusted.holdfast.") || name.starts_with("trusted.SGI_ACL_") ||
         name == "security.selinux" || name == "security.evm" || name == "security.ima";
}

int read_xattrs(const char* path, bool values, std::vector<uint8_t>& out) {
  out.clear();
  std::vector<char> list, value;
  const int error =
      read_all(list, [&](char* to, size_t size) { return listxattr(path, to, size); });
  if (error != 0) return error == EOPNOTSUPP ? 0 : error;
  std::vector<std::string> names;
  for (size_t at = 0; at < list.size(); at += names.back().size() + 1) {
    names.emplace_back(list.data() + at);
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    if (is_own_attribute(name)) continue;
    value.clear();
    const int failed = !values ? 0 : read_all(value, [&](char* to, size_t size) {
      return getxattr(path, name.c_str(), to, size);
    });
    if (failed == ENODATA) continue;  // it went meanwhile
    if (failed != 0) return failed;
    const XattrItem item{static_cast<uint32_t>(name.size()), static_cast<uint32_t>(value.size())};
    append(out, &item, sizeof item);
    append(out, name.data(), name.size());
    append(out, value.data(), value.size());
  }
  return 0;
}

}  // namespace holdfast::replica
