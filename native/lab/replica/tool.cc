#include "tool.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace holdfast::replica_tool {

void die(const std::string& what, int error) {
  const std::string text = error == 0 ? what : what + ": " + std::strerror(error);
  std::fprintf(stderr, "replica_tool: %s\n", text.c_str());
  std::fflush(nullptr);
  _exit(2);
}

void require(bool ok, const std::string& what) {
  if (!ok) die(what, errno);
}

const std::string& Options::text(const std::string& key) const {
  const auto found = named.find(key);
  if (found == named.end()) die("no option --" + key);
  return found->second;
}

uint64_t Options::number(const std::string& key) const {
  const std::string& value = text(key);
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size()) {
    die("--" + key + " takes a number, not \"" + value + "\"");
  }
  return number;
}

Options parse_options(const Args& args, std::map<std::string, std::string> defaults, size_t words) {
  Options options;
  options.named = std::move(defaults);
  for (size_t i = 0; i < args.size(); i++) {
    if (!args[i].starts_with("--")) {
      options.words.push_back(args[i]);
      continue;
    }
    const auto found = options.named.find(args[i].substr(2));
    if (found == options.named.end()) die("unknown option " + args[i]);
    if (i + 1 == args.size()) die(args[i] + " needs a value");
    found->second = args[++i];
  }
  if (options.words.size() != words) {
    die("needs " + std::to_string(words) + " words, got " + std::to_string(options.words.size()));
  }
  return options;
}

std::string error_name(int error) {
  if (error == 0) return "ok";
  const char* name = strerrorname_np(error);
  return name == nullptr ? std::to_string(error) : name;
}

std::string encode(const std::string& bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  if (bytes.empty()) return "%";
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '_' || c == '-' || c == '/';
    if (plain) {
      text += c;
    } else {
      text += '%';
      text += digits[byte >> 4];
      text += digits[byte & 15];
    }
  }
  return text;
}

std::string decode(const std::string& text) {
  std::string bytes;
  if (text == "%") return bytes;
  for (size_t i = 0; i < text.size(); i++) {
    unsigned value = 0;
    if (text[i] == '%' && i + 2 < text.size()) {
      std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16);
      bytes += static_cast<char>(value);
      i += 2;
    } else {
      bytes += text[i];
    }
  }
  return bytes;
}

uint64_t Random::next() {
  state_ += 0x9e3779b97f4a7c15;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

void fill(void* to, size_t size, uint64_t seed) {
  Random random(seed);
  auto* bytes = static_cast<uint8_t*>(to);
  for (size_t at = 0; at < size; at += 8) {
    const uint64_t word = random.next();
    std::memcpy(bytes + at, &word, size - at < 8 ? size - at : 8);
  }
}

bool read_file(int directory, const char* name, std::string& out) {
  out.clear();
  const Fd fd(openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid()) return false;
  char buffer[65536];
  for (;;) {
    const ssize_t got = read(fd.get(), buffer, sizeof(buffer));
    if (got < 0) return false;
    if (got == 0) return true;
    out.append(buffer, static_cast<size_t>(got));
  }
}

void write_all(int fd, const std::string& bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t put = write(fd, bytes.data() + at, bytes.size() - at);
    if (put < 0 && errno == EINTR) continue;
    require(put >= 0, "write");
    at += static_cast<size_t>(put);
  }
}

}  // namespace holdfast::replica_tool
