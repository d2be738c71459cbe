#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "replica/record.h"

/**
 * What a peer may not have: ranges of files at a grain of 4 KiB, files whose attributes changed,
 * names, directories. Filled from records that leave the ring before the peer has them, from the
 * marks of a server that lost its power (marks.h), and from what the target of a resync says it
 * lacks. Always a superset of what differs. Emptied by the resync (resync.h), which states each
 * piece as it is at that moment.
 *
 * Memory is bounded: what would go beyond is kept coarser (neighbouring ranges together, then the
 * whole file; names together as their directory; at last everything, to be compared by hash).
 */
namespace holdfast::replica {

inline constexpr uint64_t dirty_grain = 4096;
inline constexpr uint64_t to_the_end = INT64_MAX;

/** Of one piece of work; the numbers are those of the file. */
enum class Work : uint32_t {
  none = 0,
  inode = 1,    // attributes, xattrs, size: state them; the target makes the file when it lacks it
  entry = 2,    // what `name` in `parent` is
  listing = 3,  // all names of directory `file`
  data = 4,     // bytes from `from` to `to`
  compare = 5,  // the same range by hash: only what differs is then sent
  compare_inode = 6,
  compare_all = 7,  // everything that has an id
};

/** A piece of work, taken out. */
struct WorkItem {
  Work what = Work::none;
  FileId file = 0;
  FileId parent = 0;
  uint64_t from = 0, to = 0;
  std::string name;
};

struct DirtyTotals {
  uint64_t bytes = 0;  // of data ranges, sizes of files not looked at: `to_the_end` counts 0
  uint64_t files = 0;  // files with anything
  uint64_t names = 0;
  uint64_t items = 0;  // inodes, names, directories, ranges: at least so many pieces of work
  uint64_t memory = 0;
  uint64_t coarsened = 0;  // times something was kept coarser than it came
  bool everything = false;
};

class Dirty {
 public:
  explicit Dirty(uint64_t max_memory = 64u << 20);

  // Every call is safe from any thread.

  /** What a record changes, states or compares. A file that loses its last name is forgotten. */
  void touch(const Record& record);
  /** And its inode: what changes data changes size and mtime. `to` beyond the end of the file is
   * fine. */
  void touch_data(FileId file, uint64_t from, uint64_t to);
  void touch_inode(FileId file);
  void touch_entry(FileId parent, std::string_view name);
  void touch_listing(FileId directory);
  /** And its inode. */
  void compare_data(FileId file, uint64_t from, uint64_t to);
  void compare_inode(FileId file);
  void compare_all();
  /** Puts back what was taken and not done, or the rest of it. */
  void give_back(const WorkItem& item);
  /** Adds all that the other has. */
  void merge(const Dirty& other);
  /** The file is gone for good. */
  void forget(FileId file);
  void clear();

  /**
   * Takes the next piece out: inodes before names before directories before data before
   * comparisons, files in the order of their ids, ranges in order and at most `limit` bytes long.
   * `directories_last`: those come after all others, since each makes more work. False: nothing is
   * left.
   */
  bool take(WorkItem& out, uint64_t limit, bool directories_last = false);
  bool empty() const;
  /** All names of a directory are dirty, or all data of a file of this size. */
  bool covers(FileId file, uint64_t size) const;
  DirtyTotals totals() const;

  /** Durable when it returns 0; replaces what is there. errno. */
  int save(const std::string& path) const;
  /** Adds what a file holds. ENOENT: there is none; EBADMSG: it is damaged, nothing was added. */
  int load(const std::string& path);

 private:
  struct Impl;
  Impl* impl_;

 public:
  ~Dirty();
  Dirty(const Dirty&) = delete;
  Dirty& operator=(const Dirty&) = delete;
};

}  // namespace holdfast::replica
