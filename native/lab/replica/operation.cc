#include "operation.h"

#include <cstdio>
#include <cstring>
#include <sstream>

#include "tool.h"

namespace holdfast::replica_tool {

static constexpr const char* names[] = {
    "write",       "append",    "truncate",  "reset",        "allocate", "punch",
    "zero",        "store",     "copy",      "create",       "mkdir",    "symlink",
    "fifo",        "device",    "link",      "adopt",        "replace",  "unlink",
    "unlink_open", "rmdir",     "rename",    "rename_new",   "exchange", "chmod",
    "chown",       "times",     "set_xattr", "remove_xattr", "set_acl",  "set_default",
    "fsync",       "fdatasync", "fsync_all", "append_all"};
static_assert(sizeof(names) / sizeof(names[0]) == actions);

std::string to_text(const Operation& operation) {
  std::ostringstream out;
  out << names[static_cast<size_t>(operation.action)] << ' ' << encode(operation.a) << ' '
      << encode(operation.b) << ' ' << operation.offset << ' ' << operation.length << ' '
      << operation.seed << ' ' << operation.number;
  return out.str();
}

std::optional<Operation> parse_operation(const std::string& text) {
  std::istringstream in(text);
  std::string name, a, b;
  Operation operation;
  in >> name >> a >> b >> operation.offset >> operation.length >> operation.seed >>
      operation.number;
  if (!in) return std::nullopt;
  operation.a = decode(a);
  operation.b = decode(b);
  for (size_t i = 0; i < actions; i++) {
    if (name != names[i]) continue;
    operation.action = static_cast<Action>(i);
    return operation;
  }
  return std::nullopt;
}

bool changes_something(Action action) {
  return action != Action::fsync && action != Action::fdatasync && action != Action::fsync_all;
}

bool is_durable(const Operation& operation) {
  if (operation.action == Action::store) return true;
  return operation.action == Action::write && (operation.number & write_durable) != 0;
}

std::string domain_name(size_t domain) {
  return "domain" + std::to_string(domain);
}

std::string all_text(size_t domain, uint32_t number) {
  char text[all_record + 1];
  std::snprintf(text, sizeof(text), "%6zu %10u ", domain, number);
  const size_t head = std::strlen(text);
  fill(text + head, all_record - head, domain << 32 | number);
  return std::string(text, all_record);
}

std::string acl_value(mode_t mode, uint32_t permissions, uint32_t mask) {
  const struct {
    uint16_t tag, permissions;
    uint32_t id;
  } entries[] = {{1, static_cast<uint16_t>(mode >> 6 & 7), 0xffffffff},
                 {2, static_cast<uint16_t>(permissions), 12001},
                 {4, static_cast<uint16_t>(mode >> 3 & 7), 0xffffffff},
                 {16, static_cast<uint16_t>(mask), 0xffffffff},
                 {32, static_cast<uint16_t>(mode & 7), 0xffffffff}};
  return std::string("\x02\0\0\0", 4) +
         std::string(reinterpret_cast<const char*>(entries), sizeof(entries));
}

mode_t inherit_acl(const std::string& from, mode_t asked, std::string& access) {
  // posix_acl_create(9): the owner's, the mask's and the others' entries lose what was not asked
  // for.
  access = from;
  mode_t mode = asked & ~static_cast<mode_t>(0777);
  for (size_t at = 4; at + 8 <= access.size(); at += 8) {
    const auto tag = static_cast<uint8_t>(access[at]);
    const int shift = tag == 1 ? 6 : tag == 16 ? 3 : tag == 32 ? 0 : -1;
    if (shift < 0) continue;
    access[at + 2] = static_cast<char>(access[at + 2] & static_cast<char>(asked >> shift & 7));
    mode |= static_cast<mode_t>(access[at + 2]) << shift;
  }
  return mode;
}

}  // namespace holdfast::replica_tool
