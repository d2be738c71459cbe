// replica_tool: proves that a replicated directory behaves as a local one, and that what the other
// server holds is what this one had. Used by test/replica and the lab only.

#include <csignal>
#include <cstdio>

#include "tool.h"

int main(int argc, char** argv) {
  using namespace holdfast::replica_tool;
  const std::map<std::string, int (*)(const Args&)> commands = {
      {"posix", run_posix}, {"fsx", run_fsx},         {"compare", run_compare},
      {"tree", run_tree},   {"history", run_history}, {"check-prefix", run_check_prefix},
      {"pull", run_pull},
  };
  const auto found = argc < 2 ? commands.end() : commands.find(argv[1]);
  if (found == commands.end()) {
    std::fprintf(stderr,
                 "usage: replica_tool posix|tree DIR | fsx DIR --seed S --seconds N\n"
                 "       replica_tool history DIR --log FILE | check-prefix LOG DIR\n"
                 "       replica_tool compare A B | pull DIR\n");
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);
  return found->second(Args(argv + 2, argv + argc));
}
