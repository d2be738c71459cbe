// One operation of a history: what is asked of the file system, as it stands in the log.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <vector>

namespace holdfast::replica_tool {

enum class Action : uint8_t {
  write,         // a: offset, length, seed of the data; number: write_* flags
  append,        // a: length, seed; one write with O_APPEND
  truncate,      // a: offset is the new size
  reset,         // a: open with O_TRUNC
  allocate,      // a: offset, length
  punch,         // a: offset, length
  zero,          // a: offset, length
  store,         // a: offset, length, seed; through a shared mapping, then msync
  copy,          // from a at offset to b at number, length
  create,        // a: number is the mode
  mkdir,         // a: number is the mode
  symlink,       // a; b is the target
  fifo,          // a: number is the mode
  device,        // a: number is the mode, offset the device number
  link,          // a gets the name b
  adopt,         // a: O_TMPFILE, written (length, seed), then linked; number is the mode
  replace,       // a: a file of a name that is not replicated, written, then renamed; as adopt
  unlink,        // a
  unlink_open,   // a, which is open and written to afterwards
  rmdir,         // a
  rename,        // a to b
  rename_new,    // a to b, RENAME_NOREPLACE
  exchange,      // a and b
  chmod,         // a: number
  chown,         // a: number is the owner, offset the group
  times,         // a: offset seconds, number nanoseconds of the mtime
  set_xattr,     // a, b is the name: length and seed of the value
  remove_xattr,  // a, b
  set_acl,       // a: number is alice's permissions, offset the mask
  set_default,   // a, a folder: the same, as its default ACL
  fsync,         // a
  fdatasync,     // a
  fsync_all,     // the file that all append to
  append_all,    // number: which of this domain's appends it is; to the file that all append to
};
inline constexpr size_t actions = static_cast<size_t>(Action::append_all) + 1;

inline constexpr uint32_t write_durable = 1;  // RWF_DSYNC
inline constexpr uint32_t write_direct = 2;   // O_DIRECT

/** The file in the directory's root that all domains append records of this size to. */
inline constexpr const char* all_name = "appends";
inline constexpr size_t all_record = 64;

struct Operation {
  Action action = Action::fsync;
  std::string a, b;  // relative to the domain's folder
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t seed = 0;
  uint32_t number = 0;
};

/** How the names end that `replace` gives a file at first: the mirror must not replicate them. */
inline constexpr const char* new_suffix = ".new";

std::string to_text(const Operation& operation);
std::optional<Operation> parse_operation(const std::string& text);

/** What the operation leaves on disk: false for those that only make durable. */
bool changes_something(Action action);
/** True when the operation itself has made durable what it changed when it returns. */
bool is_durable(const Operation& operation);

/** Name of the folder of a domain: a part of the tree whose operations come one after the other. */
std::string domain_name(size_t domain);

/** The record that the domain's `number`th append adds to the common file. */
std::string all_text(size_t domain, uint32_t number);

/** An access ACL with an entry for one user, as the xattr's value (posix_acl_xattr.h). */
std::string acl_value(mode_t mode, uint32_t permissions, uint32_t mask);

/** The access ACL and the mode of what is made with mode `asked` in a folder with a default ACL. */
mode_t inherit_acl(const std::string& from, mode_t asked, std::string& access);

/** Does it; 0 or errno. `root` is the history's directory, `folder` the domain's. */
int perform(const Operation& operation, int root, int folder, size_t domain);

}  // namespace holdfast::replica_tool
