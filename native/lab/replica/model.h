// A domain's files as they are after some of its operations, and the same seen in a real directory.
#pragma once

#include <sys/stat.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "operation.h"

namespace holdfast::replica_tool {

/** One file at one path, from a model or a real directory; what both must agree on. */
struct Entry {
  mode_t mode = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  dev_t device = 0;
  nlink_t links = 0;  // of what is no directory
  uint64_t size = 0;
  uint64_t content = 0;  // hash of the bytes, or of a symbolic link's target
  uint64_t xattrs = 0;   // hash of names and values
  std::string first;     // the first path of the same file
  timespec mtime{};
  bool mtime_known = false;

  uint64_t hash(const std::string& path) const;
  /** What is not the same, in words; empty when all is. An unknown mtime agrees with any. */
  std::string difference(const Entry& other) const;
};

/** By path below the domain's folder; "" is the folder itself. */
using Snapshot = std::map<std::string, Entry>;
/** Of everything but the mtimes. */
uint64_t hash_of(const Snapshot& snapshot);
/** Reads a real directory; ends the process when that fails. */
Snapshot read_snapshot(int directory);

struct Node {
  mode_t mode = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  dev_t device = 0;
  nlink_t links = 1;
  std::string bytes;  // content, or the target of a symbolic link
  std::map<std::string, std::string> xattrs;
  std::map<std::string, std::shared_ptr<Node>> children;
  timespec mtime{};
  bool mtime_known = false;
  uint64_t content = 0;
  bool hashed = false;
  uint64_t changed = 0;  // the operation that changed it last: content, attributes, names in it

  bool is_directory() const { return S_ISDIR(mode); }
  bool is_regular() const { return S_ISREG(mode); }
};
using NodePtr = std::shared_ptr<Node>;

class Model {
 public:
  explicit Model(mode_t mode);
  /** What a real directory has; ends the process when it cannot be read. */
  static Model of(int directory);
  NodePtr find(const std::string& path) const;
  /** Two names of one file: nothing is renamed, and no file system is asked (rename(2); vfs_rename
   * in fs/namei.c). */
  bool is_idle(const Operation& operation) const;
  NodePtr parent_of(const std::string& path) const;

  /**
   * Does operation number `index` and says how it ends: 0 or errno. `bytes` limits how many bytes
   * a write, append, store or copy moves: it was cut short. mtimes that it sets become unknown.
   */
  int apply(const Operation& operation, uint64_t index, uint64_t bytes = ~uint64_t{0});
  /** Paths of the files whose mtimes the operation has set, to be looked at after it. */
  static std::vector<std::string> touched(const Operation& operation);
  void set_mtime(const std::string& path, const timespec& mtime);

  Snapshot snapshot() const;
  /** Paths of all files, folders first to last; without the root. */
  std::vector<std::string> paths() const;

 private:
  int apply_data(const Operation& operation, uint64_t index, uint64_t bytes);
  int apply_attributes(const Operation& operation, uint64_t index);
  int make(const Operation& operation, uint64_t index);
  int link(const Operation& operation, uint64_t index);
  int remove(const Operation& operation, uint64_t index);
  int rename(const Operation& operation, uint64_t index);

  NodePtr root_;
};

/** Where the bytes of a data operation may be cut: at the ends of the file's pages. */
std::vector<uint64_t> cuts(const Operation& operation, const Model& before);

}  // namespace holdfast::replica_tool
