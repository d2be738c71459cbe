// Small helpers that the lab tool's commands share.
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/fd.h"

namespace holdfast::lab {

// Prints "lab_tool: what: strerror" and ends the process with code 1.
[[noreturn]] void die(const std::string& what, int error = 0);

// Ends the process with the text of errno when ok is false.
inline void require(bool ok, const std::string& what);

// CLOCK_BOOTTIME in us: one clock with the product's own timestamps.
inline uint64_t now_us() {
  return static_cast<uint64_t>(boot_ns() / ns_per_us);
}

// A process named by "PID:START", where START is field 22 of /proc/PID/stat, so that a recycled
// pid is never taken for the process that was meant.
struct Process {
  int pid = 0;
  Fd pidfd;
};
// Opens it; pidfd is closed (-1) when that process is gone.
Process open_process(const std::string& name);
// Field 22 of /proc/PID/stat: clock ticks since boot at which the process started; 0 when gone.
uint64_t start_time(int pid);

// Enters the network namespace of a process; ends this process on failure.
void enter_net(const std::string& process);

// Options of the form key=value; a key that is not in the defaults is an error.
using Options = std::map<std::string, std::string>;
Options parse_options(const std::vector<std::string>& args, Options defaults);
uint64_t number(const Options& options, const std::string& key);

// An IPv4 or IPv6 address with port, and the text form without port.
struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  int family() const { return storage.ss_family; }
};
Address parse_address(const std::string& text, uint16_t port);
// The address whose last 32 bits are `offset` greater.
Address add_offset(const Address& base, uint32_t offset);
std::string to_text(const Address& address);

// A JSON string with quotes; bytes that are not printable ASCII become '?'.
std::string quote(const std::string& text);

// Commands that come in on stdin as lines "ID VERB [ARGUMENT]".
struct Command {
  std::string id;
  std::string verb;
  std::string argument;
};
class CommandReader {
 public:
  // Reads what is there without blocking. False at the end of the input: the owner is gone.
  bool read(std::vector<Command>& out);

 private:
  std::string buffer_;
};

// Writes a whole line to stdout; ends the process when nobody reads it any more.
void write_line(const std::string& line);

}  // namespace holdfast::lab

inline void holdfast::lab::require(bool ok, const std::string& what) {
  if (!ok) die(what, errno);
}
