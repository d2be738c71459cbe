// lab_tool: the part of the lab that has to be close to the kernel. Used by src/lab only.

#include <csignal>
#include <cstdio>
#include <map>

#include "lab/commands.h"

int main(int argc, char** argv) {
  using holdfast::lab::Args;
  const std::map<std::string, int (*)(const Args&)> commands = {
      {"host", holdfast::lab::run_host},     {"exec", holdfast::lab::run_exec},
      {"net", holdfast::lab::run_net},       {"power", holdfast::lab::run_power},
      {"device", holdfast::lab::run_device}, {"relay", holdfast::lab::run_relay},
      {"load", holdfast::lab::run_load},     {"serve", holdfast::lab::run_serve},
      {"sniff", holdfast::lab::run_sniff},   {"write", holdfast::lab::run_write},
  };
  auto found = argc < 2 ? commands.end() : commands.find(argv[1]);
  if (found == commands.end()) {
    std::fprintf(stderr,
                 "usage: lab_tool host|exec|net|power|device|relay|load|serve|sniff|write …\n");
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);
  return found->second(Args(argv + 2, argv + argc));
}
