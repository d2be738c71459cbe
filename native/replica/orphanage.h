#pragma once
#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/fd.h"
#include "replica/ids.h"
#include "replica/tree.h"

/**
 * The folder `.holdfast` in a volume's root: it takes what stands at a name that is another file's,
 * because a later record may want it, and files that have not got a name yet (inode records). It is
 * made when first needed and goes when it is empty. Making and removing it does not change the
 * root's mtime, also when the machine stops between two calls: the mtime lies in an attribute of
 * the root meanwhile.
 *
 * A file with an id has a name in it that follows from the id, as long as it has only one there.
 */
namespace holdfast::replica {

/** What is left in the orphanage when a resync ends: no name of the source leads to it. */
struct Orphan {
  uint8_t volume = 0;
  int directory = -1;          // the orphanage, or a folder in it that is not kept
  const char* name = nullptr;  // in it
  FileId file = 0;             // 0: foreign, no record ever spoke of it
  bool removed = false;        // by a record of this resync or before: the source had it
  struct stat attributes {};
};

/** Called for each; to keep it: moves it away and sets `kept`. Else it is removed. 0 or errno. */
using KeepOrphan = std::function<int(const Orphan& orphan, bool& kept)>;

class Orphanage {
 public:
  Orphanage(const Tree& tree, const Ids& ids, uint8_t volume)
      : tree_(tree), ids_(ids), volume_(volume) {}

  /** What a file is called in there. */
  static std::string name_of(FileId id) { return "f" + std::to_string(id); }

  /** Finds what a replay that was cut short left behind. 0 or errno. */
  int look();
  /** Its descriptor, made when there is none. 0 or errno. */
  int get(int& fd);
  /** A name in it that is free. */
  std::string free_name();
  /** Frees the name of this id, which another file may have. 0 or errno. */
  int free_name_of(FileId id);
  /** Moves what `name` is in there; `id` 0: it has none. 0 or errno. */
  int take(int directory, const char* name, FileId id);
  /** Moves a file from its name in there to another one, as renameat2(2). ENOENT: it is not there.
   */
  int give(FileId id, const OpenFile& file, int directory, const char* name, unsigned flags);
  /** A file that has a name elsewhere loses the one in there. 0 or errno. */
  int leave(FileId id, const OpenFile& file);
  /** Removes the folder if nothing is in it. 0 or errno. */
  int tidy();
  /**
   * Removes all that is in it but what has not got a name yet, then itself if nothing is left.
   * EUCLEAN: it holds the last name of a file that a record has not removed, so the replay did not
   * converge; that file stays.
   */
  int empty();
  /** The same at the end of a resync: whatever is left is unwanted. `keep` may be null. `gone`: the
   * ids of all that went. */
  int empty(const KeepOrphan& keep, std::vector<FileId>& gone);

 private:
  int make();
  int restore();
  int save();
  int offer(const KeepOrphan& keep, int directory, const std::string& name, bool& kept);
  bool has(FileId id, const OpenFile& file) const;
  bool has_no_name_yet(const char* name) const;

  const Tree& tree_;
  const Ids& ids_;
  uint8_t volume_;
  Fd fd_;
  uint64_t next_ = 0;
  timespec saved_{0, UTIME_OMIT};
};

/** All names in a directory but . and .., in no order. 0 or errno. */
int list_names(int directory, std::vector<std::string>& out);

/**
 * Removes everything in a directory, however deep, that no record knows: what has no id, is local,
 * or has no name left by the records. EUCLEAN: something else is there; it stays.
 */
int purge(const Tree& tree, const Ids& ids, uint8_t volume, int directory);

/** A server that becomes primary: what had not got its name never will. 0 or errno. */
int drop_nameless(const Tree& tree, Ids& ids);

}  // namespace holdfast::replica
