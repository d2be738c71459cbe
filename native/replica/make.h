#pragma once
#include "replica/core.h"

namespace holdfast::replica {

/** Most bytes of an ACL, as of any extended attribute. */
inline constexpr size_t acl_max = 65536;

/** What is to be made: MKNOD, MKDIR, SYMLINK, CREATE. */
struct Core::Make {
  uint32_t opcode = 0;
  uint32_t mode = 0;  // with its type
  uint32_t umask = 0;
  uint32_t rdev = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t flags = 0;  // of the open
  const char* name = nullptr;
  const char* target = "";
};

}  // namespace holdfast::replica
