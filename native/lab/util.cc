#include "lab/util.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace holdfast::lab {

void die(const std::string& what, int error) {
  if (error != 0) {
    std::fprintf(stderr, "lab_tool: %s: %s\n", what.c_str(), std::strerror(error));
  } else {
    std::fprintf(stderr, "lab_tool: %s\n", what.c_str());
  }
  std::exit(1);
}

uint64_t start_time(int pid) {
  char text[1024];
  std::string path = "/proc/" + std::to_string(pid) + "/stat";
  Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return 0;
  ssize_t got = read(fd.get(), text, sizeof text - 1);
  if (got <= 0) return 0;
  text[got] = 0;
  // The command name (field 2) may hold spaces and brackets: count from the last one.
  const char* at = std::strrchr(text, ')');
  if (at == nullptr || at[1] == 0) return 0;
  if (at[2] == 'Z' || at[2] == 'X') return 0;
  for (int field = 2; field < 22 && at != nullptr; field++) at = std::strchr(at + 1, ' ');
  return at == nullptr ? 0 : std::strtoull(at + 1, nullptr, 10);
}

Process open_process(const std::string& name) {
  size_t colon = name.find(':');
  if (colon == std::string::npos) die("not a process (PID:START): " + name);
  Process process;
  process.pid = std::atoi(name.c_str());
  process.pidfd = Fd(static_cast<int>(syscall(SYS_pidfd_open, process.pid, 0)));
  // Checked after the pidfd is open: from here on it cannot be another process.
  if (start_time(process.pid) != std::strtoull(name.c_str() + colon + 1, nullptr, 10)) {
    process.pidfd.reset();
  }
  return process;
}

void enter_net(const std::string& process) {
  Process target = open_process(process);
  if (!target.pidfd.valid()) die("process " + process + " is gone");
  require(setns(target.pidfd.get(), CLONE_NEWNET) == 0, "setns");
}

Options parse_options(const std::vector<std::string>& args, Options defaults) {
  for (const std::string& arg : args) {
    size_t at = arg.find('=');
    if (at == std::string::npos) die("not key=value: " + arg);
    std::string key = arg.substr(0, at);
    if (defaults.find(key) == defaults.end()) die("unknown option: " + key);
    defaults[key] = arg.substr(at + 1);
  }
  return defaults;
}

uint64_t number(const Options& options, const std::string& key) {
  auto found = options.find(key);
  if (found == options.end() || found->second.empty()) die("option " + key + " is missing");
  char* end = nullptr;
  errno = 0;
  uint64_t value = std::strtoull(found->second.c_str(), &end, 10);
  if (errno != 0 || *end != 0) die("option " + key + " is not a number: " + found->second);
  return value;
}

Address parse_address(const std::string& text, uint16_t port) {
  Address address;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address.length = sizeof *v4;
  } else if (inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    address.length = sizeof *v6;
  } else {
    die("not an address: " + text);
  }
  return address;
}

Address add_offset(const Address& base, uint32_t offset) {
  Address address = base;
  void* last = nullptr;
  if (base.family() == AF_INET) {
    last = &reinterpret_cast<sockaddr_in*>(&address.storage)->sin_addr.s_addr;
  } else {
    last = &reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_addr.s6_addr[12];
  }
  uint32_t value = 0;
  std::memcpy(&value, last, sizeof value);
  value = htonl(ntohl(value) + offset);
  std::memcpy(last, &value, sizeof value);
  return address;
}

std::string to_text(const Address& address) {
  char text[INET6_ADDRSTRLEN] = "?";
  if (address.family() == AF_INET) {
    auto* v4 = reinterpret_cast<const sockaddr_in*>(&address.storage);
    inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
  } else {
    auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
    inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
  }
  return text;
}

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else {
      out += (c >= ' ' && c <= '~') ? c : '?';
    }
  }
  return out + '"';
}

bool CommandReader::read(std::vector<Command>& out) {
  char bytes[4096];
  bool open = true;
  while (true) {
    pollfd wait{STDIN_FILENO, POLLIN, 0};
    if (poll(&wait, 1, 0) <= 0) break;
    ssize_t got = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      open = false;
      break;
    }
    buffer_.append(bytes, static_cast<size_t>(got));
  }
  size_t end = 0;
  while ((end = buffer_.find('\n')) != std::string::npos) {
    std::string line = buffer_.substr(0, end);
    buffer_.erase(0, end + 1);
    size_t a = line.find(' ');
    if (a == std::string::npos) continue;
    size_t b = line.find(' ', a + 1);
    Command command;
    command.id = line.substr(0, a);
    command.verb = line.substr(a + 1, b == std::string::npos ? b : b - a - 1);
    if (b != std::string::npos) command.argument = line.substr(b + 1);
    out.push_back(command);
  }
  return open;
}

void write_line(const std::string& line) {
  std::string whole = line + "\n";
  size_t at = 0;
  while (at < whole.size()) {
    ssize_t put = ::write(STDOUT_FILENO, whole.data() + at, whole.size() - at);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) std::exit(0);
    at += static_cast<size_t>(put);
  }
}

}  // namespace holdfast::lab
