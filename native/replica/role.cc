#include "replica/role.h"

#include <arpa/inet.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace holdfast::replica {

namespace {

/** Reads key=NUMBER within bounds into `out`; absent leaves it. */
template <typename Number>
Failure read_number(const Request& request, std::string_view key, uint64_t least, uint64_t most,
                    Number& out) {
  if (!request.has(key)) return {};
  const std::string text(request.get(key));
  char* end = nullptr;
  errno = 0;
  const uint64_t value = strtoull(text.c_str(), &end, 10);
  const bool digits = !text.empty() && text.find_first_not_of("0123456789") == text.npos;
  if (!digits || errno != 0 || value < least || value > most)
    return Failure::of(EINVAL, std::string(key) + "=" + text + " is not from " +
                                   std::to_string(least) + " to " + std::to_string(most));
  out = Number(value);
  return {};
}

bool read_set(std::string_view text, uint8_t (&out)[16]) {
  if (text.size() != 32) return false;
  for (size_t i = 0; i < 16; i++) {
    const std::string byte(text.substr(i * 2, 2));
    if (byte.find_first_not_of("0123456789abcdefABCDEF") != byte.npos) return false;
    out[i] = uint8_t(strtoul(byte.c_str(), nullptr, 16));
  }
  return true;
}

/** One of two words; absent leaves the first. */
Failure read_choice(const Request& request, std::string_view key, std::string_view first,
                    std::string_view second, bool& out) {
  const std::string_view value = request.get(key, first);
  if (value != first && value != second)
    return Failure::of(
        EINVAL, std::string(key) + " is " + std::string(first) + " or " + std::string(second));
  out = value == second;
  return {};
}

bool known_key(std::string_view key) {
  constexpr std::string_view keys[] = {
      "role",     "set",     "node",        "epoch",       "state",   "dir",     "peer",
      "listen",   "cert",    "key",         "ca",          "async",   "ack",     "ring",
      "journal",  "skip",    "sendtimeout", "locktimeout", "threads", "tocheck", "resyncrate",
      "fullsync", "discard", "force",       "marks",       "distant", "decided"};
  for (const auto& known : keys)
    if (key == known) return true;
  return false;
}

bool is_below(const std::string& path, const std::string& folder) {
  return path == folder || path.starts_with(folder == "/" ? folder : folder + "/");
}

/** Absolute, and no folder inside another. That paths are real ones is checked when they are
 * opened: a question about a path below a mount that nobody serves would never be answered. */
Failure check_paths(const OpenLine& line) {
  if (line.dirs.empty() || line.dirs.size() > max_root)
    return Failure::of(EINVAL, "1 to 16 dir= are needed");
  for (size_t i = 0; i < line.dirs.size(); i++) {
    const std::string& dir = line.dirs[i];
    if (!dir.starts_with('/') || dir == "/")
      return Failure::of(EINVAL, "dir=" + dir + " is not an absolute path below /");
    if (is_below(line.state, dir))
      return Failure::of(EINVAL, "state=" + line.state + " is inside dir=" + dir);
    for (size_t j = 0; j < line.dirs.size(); j++)
      if (i != j && is_below(dir, line.dirs[j]))
        return Failure::of(EINVAL, "dir=" + dir + " is inside dir=" + line.dirs[j]);
  }
  if (!line.state.starts_with('/')) return Failure::of(EINVAL, "state= is not an absolute path");
  return {};
}

Failure check_needed(const Request& request, const OpenLine& line) {
  if (line.role == RoleKind::mount) return {};
  for (const char* key : {"set", "node", "epoch", "cert", "key", "ca"})
    if (request.get(key).empty())
      return Failure::of(EINVAL, std::string(key) + "= is needed for this role");
  if (!line.distant.empty() && line.role != RoleKind::prim)
    return Failure::of(EINVAL, "distant= is of role=prim");
  if (line.distant.size() > max_distant) return Failure::of(EINVAL, "there are at most 4 distant=");
  if (line.role == RoleKind::prim && line.peer.empty())
    return Failure::of(EINVAL, "peer= is needed by role=prim");
  if (line.role == RoleKind::second && line.listen.empty())
    return Failure::of(EINVAL, "listen= is needed by role=second");
  return {};
}

}  // namespace

Failure Failure::of(int error, const std::string& text) {
  const char* name = strerrorname_np(error);
  return {name == nullptr ? "EIO" : name, error == EINVAL ? text : text + ": " + strerror(error)};
}

Failure parse_open(const Request& request, OpenLine& out) {
  for (const auto& [key, value] : request.values)
    if (!known_key(key)) return Failure::of(EINVAL, "open has no key " + key);
  const std::string_view role = request.get("role");
  if (role == "prim")
    out.role = RoleKind::prim;
  else if (role == "second")
    out.role = RoleKind::second;
  else if (role == "mount")
    out.role = RoleKind::mount;
  else
    return Failure::of(EINVAL, "role is prim, second or mount");
  if (request.has("set") && !read_set(request.get("set"), out.set))
    return Failure::of(EINVAL, "set= is 32 hexadecimal digits");
  out.state = request.get("state");
  out.dirs = request.all("dir");
  out.peer = request.get("peer");
  out.listen = request.get("listen");
  out.cert = request.get("cert");
  out.key = request.get("key");
  out.ca = request.get("ca");
  out.skip = request.all("skip");
  out.tocheck = request.all("tocheck");
  out.distant = request.all("distant");
  constexpr uint64_t gib = 1u << 30;
  const Failure checks[] = {
      read_number(request, "node", 0, UINT32_MAX, out.node),
      read_number(request, "epoch", 1, (uint64_t{1} << 62), out.epoch),
      read_number(request, "ring", 4u << 20, 64 * gib, out.ring),
      read_number(request, "journal", 16u << 20, 1024 * gib, out.journal),
      read_number(request, "sendtimeout", 1, 3'600'000, out.sendtimeout_ms),
      read_number(request, "locktimeout", 1, 3'600'000, out.locktimeout_ms),
      read_number(request, "threads", 1, 64, out.threads),
      read_number(request, "marks", 64, 1u << 20, out.marks),
      read_number(request, "resyncrate", 0, 1024 * gib, out.resyncrate),
      read_choice(request, "fullsync", "0", "1", out.fullsync),
      read_choice(request, "discard", "0", "1", out.discard),
      read_choice(request, "force", "0", "1", out.force),
      read_choice(request, "decided", "0", "1", out.decided),
      read_choice(request, "async", "none", "second", out.async_second),
      read_choice(request, "ack", "fsync", "strict", out.strict),
      check_paths(out),
      check_needed(request, out),
  };
  for (const Failure& failure : checks)
    if (failure.failed()) return failure;
  return {};
}

Failure Role::alone(uint64_t) {
  return Failure::of("ROLE", "only the primary goes on alone");
}

Failure Role::joined(uint64_t) {
  return Failure::of("ROLE", "only the primary has a peer that joins it");
}

Failure Role::verify() {
  return Failure::of("ROLE", "a comparison begins on the primary");
}

Failure Role::cut(uint32_t) {
  return Failure::of("ROLE", "this role has no connection");
}

std::unique_ptr<Role> make_role(RoleContext context, const OpenLine& line) {
  if (line.role == RoleKind::prim) return make_prim_role(context, line);
  if (line.role == RoleKind::second) return make_second_role(context, line);
  return make_mount_role(context, line);
}

}  // namespace holdfast::replica
