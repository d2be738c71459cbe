#pragma once
#include <fcntl.h>
#include <sys/xattr.h>

#include <map>
#include <string>

#include "replica/ids.h"
#include "replica/orphanage.h"
#include "replica/tree.h"
#include "test/replica_history.h"

/** Whether directories are what a history says, to the last attribute. */
namespace holdfast::replica::test {

class Comparison {
 public:
  Comparison(const Tree& tree, const Ids& ids, const History& history)
      : tree_(tree), ids_(ids), history_(history) {}

  /** What is different, first of all; empty: nothing. */
  std::string run() {
    for (size_t v = 0; v < tree_.volumes() && said_.empty(); v++) {
      node(v + 1, "/" + std::to_string(v), Fd(openat(tree_.root_fd(uint8_t(v)), ".", O_PATH)));
    }
    return said_;
  }

 private:
  void differ(const std::string& path, const std::string& what) {
    if (said_.empty()) said_ = path + ": " + what;
  }

  void node(FileId id, const std::string& path, const Fd& fd) {
    const Node& want = history_.nodes.at(id);
    struct stat have;
    Handle handle;
    if (!fd.valid() || tree_.identify(fd.get(), handle, have) != 0) return differ(path, "absent");
    if (ids_.find(want.volume, handle) != id) return differ(path, "another file");
    if (have.st_mode != want.mode) {
      differ(path, "mode " + std::to_string(have.st_mode) + " for " + std::to_string(want.mode));
    }
    if ((have.st_uid != want.uid || have.st_gid != want.gid)) differ(path, "owner");
    if (have.st_mtim.tv_sec != want.mtime.seconds ||
        have.st_mtim.tv_nsec != want.mtime.nanoseconds) {
      differ(path, "mtime " + std::to_string(have.st_mtim.tv_sec) + " for " +
                       std::to_string(want.mtime.seconds));
    }
    if (!want.is_folder() && have.st_nlink != static_cast<nlink_t>(want.links)) {
      differ(path, "links");
    }
    if (S_ISCHR(want.mode) && have.st_rdev != want.rdev) differ(path, "device");
    xattrs(want, path, fd.get());
    if (S_ISREG(want.mode)) file(want, path, fd.get());
    if (S_ISLNK(want.mode)) {
      char target[256];
      const ssize_t size = readlinkat(fd.get(), "", target, sizeof target);
      if (std::string(target, static_cast<size_t>(size)) != want.content) differ(path, "target");
    }
    if (want.is_folder()) folder(want, path, fd.get());
  }

  void file(const Node& want, const std::string& path, int fd) {
    const Fd readable(open(ProcPath(fd).text, O_RDONLY));
    std::string have(want.content.size() + 1, 0);
    const ssize_t size = pread(readable.get(), have.data(), have.size(), 0);
    have.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
    if (have.size() != want.content.size()) return differ(path, "size");
    if (have != want.content) differ(path, "content");
  }

  void folder(const Node& want, const std::string& path, int fd) {
    std::vector<std::string> names;
    list_names(fd, names);
    for (const std::string& name : names) {
      if (!want.names.contains(name)) differ(path, "has " + name);
    }
    for (const auto& [name, id] : want.names) {
      const std::string below = path + "/" + name;
      if (!said_.empty()) return;
      node(id, below, Fd(openat(fd, name.c_str(), O_PATH | O_NOFOLLOW)));
    }
  }

  void xattrs(const Node& want, const std::string& path, int fd) {
    char list[1000], value[1000];
    const ProcPath proc(fd);
    const ssize_t size = listxattr(proc.text, list, sizeof list);
    std::map<std::string, std::string> have;
    for (ssize_t at = 0; at < size; at += static_cast<ssize_t>(std::strlen(list + at)) + 1) {
      // XFS lists ACLs under two names.
      if (std::string_view(list + at).starts_with("trusted.SGI_ACL_")) continue;
      const ssize_t length = getxattr(proc.text, list + at, value, sizeof value);
      have[list + at] = std::string(value, static_cast<size_t>(length));
    }
    if (have != want.xattrs) differ(path, "xattrs");
  }

  const Tree& tree_;
  const Ids& ids_;
  const History& history_;
  std::string said_;
};

}  // namespace holdfast::replica::test
