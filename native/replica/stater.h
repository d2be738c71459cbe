#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "replica/dirty.h"
#include "replica/faults.h"
#include "replica/ids.h"
#include "replica/locks.h"
#include "replica/log.h"
#include "replica/tree.h"
#include "replica/verify.h"

/**
 * States how things are: reads a piece under the lock of its file and appends what it says before
 * the lock is given back, so that it is true at its place in the stream. What has no name or is not
 * replicated is not stated; a file that is gone is nothing to state, and no error.
 */
namespace holdfast::replica {

/** A directory that is being stated, range by range. */
struct ListingWalk {
  FileId directory = 0;
  std::string after;               // stated up to this name
  std::vector<std::string> names;  // of the directory, sorted
  uint64_t changes = 0;            // Locks::changes when they were read; 0: they were not
  bool busy = false;               // it had to be read under its lock
  bool done = false;
};

struct Stated {
  uint64_t bytes = 0;       // of records
  uint64_t read_bytes = 0;  // of files
  uint64_t records = 0;
  Lsn last = 0;
};

class Stater {
 public:
  /**
   * `room` waits until the log has room for so many bytes and reserves them; an errno ends what is
   * being stated. Called without a lock.
   */
  Stater(Tree& tree, const Ids& ids, Locks& locks, Log& log, std::function<int(size_t)> room)
      : tree_(tree), ids_(ids), locks_(locks), log_(log), room_(std::move(room)) {}

  // 0, or the errno of `room` or of a local call, whose name is then `call`.

  /** `dirty`: what else is to be stated. */
  int inode(FileId id, const Dirty& dirty);
  int entry(FileId parent, const std::string& name);
  /** The next range of names, at least. */
  int listing(ListingWalk& walk);
  /** Data of [from, to) and at most `piece` of it; holes of any length. `done`: how far it came, to
   * when nothing is left. */
  int data(FileId id, uint64_t from, uint64_t to, size_t piece, uint64_t& done);
  /** The same as hashes, each leaf in a record of its own: an answer then names that leaf alone. */
  int compare(FileId id, uint64_t from, uint64_t to, size_t piece, uint64_t run, uint64_t& done);
  int compare_inode(FileId id, uint64_t run);

  const Stated& stated() const { return stated_; }
  const char* call() const { return call_; }

 private:
  class Reserved;
  struct Found;

  int fail(int error, const char* call);
  int open(FileId id, FileRef& out) const;
  int inode_within(FileId id, const FileRef& file, const Dirty& dirty, Reserved& room,
                   size_t& needs);
  int values(FileId id);
  int look(const OpenFile& directory, FileId parent, const std::string& name, Found& out) const;
  int entry_within(const OpenFile& directory, FileId parent, const std::string& name, Time mtime,
                   Reserved& room, bool& listed);
  int read_names(ListingWalk& walk, const OpenFile& directory);
  int read_names_unlocked(ListingWalk& walk);
  int range_within(ListingWalk& walk, const OpenFile& directory, Reserved& room);
  int write_within(FileId id, int fd, uint64_t from, uint64_t to, Time mtime, Reserved& room);
  void hole_within(FileId id, uint64_t from, uint64_t to, Time mtime, Reserved& room);

  Tree& tree_;
  const Ids& ids_;
  Locks& locks_;
  Log& log_;
  std::function<int(size_t)> room_;
  Stated stated_;
  std::vector<uint8_t> buffer_;
  const Faults* faults_ = planted_faults();
  const char* call_ = "";
};

}  // namespace holdfast::replica
