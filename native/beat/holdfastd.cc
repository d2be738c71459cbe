#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "beat/keeper.h"
#include "common/clock.h"

namespace {

constexpr int exit_usage = 2;
constexpr long stop_timeout_default_s = 300;

int usage() {
  std::fputs(
      "usage: holdfastd [--stop-timeout SECONDS] -- COMMAND [ARGUMENT...]\n"
      "Sends the heartbeats of this server and keeps COMMAND, the agent, running.\n"
      "The agent gets a socket as fd 3 and shared memory as fd 4. Exit code 64 of the agent\n"
      "ends holdfastd with the same code; any other end starts the agent again.\n",
      stderr);
  return exit_usage;
}

}  // namespace

int main(int argc, char** argv) {
  long stop_timeout_s = stop_timeout_default_s;
  int at = 1;
  for (; at < argc && std::strcmp(argv[at], "--") != 0; at++) {
    if (std::strcmp(argv[at], "--stop-timeout") != 0 || at + 1 >= argc) return usage();
    stop_timeout_s = std::atol(argv[++at]);
    if (stop_timeout_s <= 0 || stop_timeout_s > 86400) return usage();
  }
  if (at + 1 >= argc) return usage();
  holdfast::beat::KeeperOptions options;
  options.command = argv + at + 1;
  options.stop_timeout_ns = stop_timeout_s * holdfast::ns_per_s;
  holdfast::beat::Keeper keeper(options);
  return keeper.run();
}
