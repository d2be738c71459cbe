// replica_tool posix DIR: prints "name=outcome" lines; exit code 0 whatever the outcomes are.
#include <cstdio>
#include <cstdlib>

#include "posix_util.h"

namespace holdfast::replica_tool {

int run_posix(const Args& args) {
  const Options options = parse_options(args, {}, 1);
  struct Group {
    const char* name;
    void (*run)(Table&);
  };
  const Group groups[] = {
      {"open", posix_open},
      {"access", posix_access},
      {"sticky", posix_sticky},
      {"times", posix_times},
      {"utimens", posix_utimens},
      {"names", posix_names},
      {"rename", posix_rename},
      {"renameat2", posix_rename_flags},
      {"content", posix_content},
      {"allocate", posix_allocate},
      {"sync", posix_sync},
      {"links", posix_links},
      {"special", posix_special},
      {"directory", posix_directory},
      {"deep", posix_deep},
      {"xattr", posix_xattr},
      {"acl", posix_acl},
      {"locks", posix_locks},
      {"map", posix_map},
      {"killpriv", posix_killpriv},
      {"unlinked", posix_open_unlinked},
  };
  char* root = realpath(options.words[0].c_str(), nullptr);
  require(root != nullptr, options.words[0]);
  Table table(root);
  free(root);
  for (const Group& group : groups) {
    table.group(group.name);
    group.run(table);
  }
  std::fputs(table.lines().c_str(), stdout);
  return 0;
}

}  // namespace holdfast::replica_tool
