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
 * The folder `.holdfast` in a volume's root: during a replay it takes what stands at a name that is
 * another file's, because a later record may want it. It is made when first needed and is gone
 * after the replay. Making and removing it does not change the root's mtime, also when the machine
 * stops between two calls: the mtime lies in an attribute of the root meanwhile.
 */
namespace holdfast::replica {

/** What is left in the orphanage when a resync ends: no name of the source leads to it. */
struct Orphan {
  uint8_t volume = 0;
  int directory = -1;          // the orphanage
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

  /** Finds what a replay that was cut short left behind. 0 or errno. */
  int look();
  /** Its descriptor, made when there is none. 0 or errno. */
  int get(int& fd);
  /** A name in it that is free. */
  std::string free_name();
  /** Moves what `name` is in there. 0 or errno. */
  int take(int directory, const char* name);
  /**
   * Removes it with all that is in it. EUCLEAN: it holds the last name of a file that a record has
   * not removed, so the replay did not converge; that file stays.
   */
  int empty();
  /** The same at the end of a resync: what is wanted by no record goes, unless `keep` takes it. */
  int empty(const KeepOrphan& keep);

 private:
  int make();
  int restore();
  int save();

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
 * or has no name left by the records. `extra_names`: also other names of files that have one
 * elsewhere. EUCLEAN: something else is there; it stays.
 */
int purge(const Tree& tree, const Ids& ids, uint8_t volume, int directory, bool extra_names);

}  // namespace holdfast::replica
