// The lab tool's commands; each takes its arguments and returns the exit code.
#pragma once

#include <string>
#include <vector>

namespace holdfast::lab {

using Args = std::vector<std::string>;

int run_host(const Args& args);
int run_exec(const Args& args);
int run_net(const Args& args);
int run_power(const Args& args);
int run_device(const Args& args);
int run_relay(const Args& args);
int run_load(const Args& args);
int run_serve(const Args& args);
int run_sniff(const Args& args);
int run_write(const Args& args);

}  // namespace holdfast::lab
