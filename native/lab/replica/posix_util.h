// The table of POSIX behaviours: each entry is a name and what came out, so that two runs, one on a
// bare file system and one through a mount, can be laid side by side.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "tool.h"

namespace holdfast::replica_tool {

class Table {
 public:
  explicit Table(std::string root);

  /** Makes a directory for the group, of mode 0777, and goes there; umask 022. */
  void group(const std::string& name);

  void is(const char* name, const std::string& outcome);
  /** "ok", or the name of errno when `returned` is -1. */
  void did(const char* name, long returned);
  void number(const char* name, long long value) { is(name, std::to_string(value)); }
  void truth(const char* name, bool value) { is(name, value ? "true" : "false"); }

  /** Runs `body` in a child with these ids only; what it enters comes back. */
  void as(uid_t uid, gid_t gid, const std::vector<gid_t>& groups,
          const std::function<void()>& body);

  /** All entries so far: "name=outcome" lines. */
  const std::string& lines() const { return lines_; }

 private:
  std::string root_;
  std::string group_;
  std::string lines_;
};

inline constexpr uid_t alice = 12001;
inline constexpr uid_t bob = 12002;
inline constexpr gid_t staff = 13001;
inline constexpr gid_t guests = 13002;

/** Makes a regular file with this content. */
void make(const std::string& name, mode_t mode = 0644, const std::string& content = "");
/** The content, or the name of the errno. */
std::string content_of(const std::string& name);
/** Up to `size` bytes at `offset`; zeros are shown as '.'. */
std::string bytes_at(int fd, off_t offset, size_t size);
/** lstat; all zero when there is no such file. */
struct stat stat_of(const std::string& name);
/** Permission bits in octal. */
std::string mode_of(const std::string& name);
/** Closes what was opened: 0, or -1 with errno as it was. */
int shut(int fd);
/** Waits until a file's new timestamps differ from all earlier ones. */
void tick();
/** Which timestamps of `name` an action changes: some of "amc", or "-". */
std::string moved(const std::string& name, const std::function<void()>& action);
/** What `fork` + `body` returns as exit code; for locks and the like. */
int in_child(const std::function<int()>& body);

void posix_open(Table& t);
void posix_access(Table& t);
void posix_sticky(Table& t);
void posix_times(Table& t);
void posix_utimens(Table& t);
void posix_names(Table& t);
void posix_rename(Table& t);
void posix_rename_flags(Table& t);
void posix_content(Table& t);
void posix_allocate(Table& t);
void posix_sync(Table& t);
void posix_links(Table& t);
void posix_special(Table& t);
void posix_directory(Table& t);
void posix_deep(Table& t);
void posix_xattr(Table& t);
void posix_acl(Table& t);
void posix_locks(Table& t);
void posix_map(Table& t);
void posix_killpriv(Table& t);
void posix_open_unlinked(Table& t);

}  // namespace holdfast::replica_tool
