// lab_tool: the part of the lab that has to be close to the kernel. Used by src/lab only.

#include <csignal>
#include <cstdio>
#include <map>

#include "commands.hpp"

int main(int argc, char** argv) {
  using lab::Args;
  const std::map<std::string, int (*)(const Args&)> commands = {
      {"host", lab::run_host},   {"exec", lab::run_exec},     {"net", lab::run_net},
      {"power", lab::run_power}, {"device", lab::run_device}, {"relay", lab::run_relay},
      {"load", lab::run_load},   {"serve", lab::run_serve},   {"sniff", lab::run_sniff},
  };
  auto found = argc < 2 ? commands.end() : commands.find(argv[1]);
  if (found == commands.end()) {
    std::fprintf(stderr, "usage: lab_tool host|exec|net|power|device|relay|load|serve|sniff …\n");
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);
  return found->second(Args(argv + 2, argv + argc));
}
