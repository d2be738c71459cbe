#pragma once
#include <functional>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "replica/changes.h"
#include "replica/ids.h"
#include "replica/record.h"
#include "replica/tree.h"
#include "replica/undo_capture.h"
#include "replica/undo_file.h"

/**
 * Applies an undo log: first the names, then data and attributes.
 *
 * Of each name the oldest statement counts, and all of them are looked at together: first every
 * name that is not what it was is emptied, then every name is given its file. So no directory ever
 * has to go below itself: the names that are left are those of the old tree, and there it did not.
 * Data and attributes go from the last batch to the first, so that the oldest is what stays.
 */
namespace holdfast::replica {

class UndoBack {
 public:
  UndoBack(Tree& tree, Ids& ids, UndoFile& file, Changes& changes)
      : tree_(tree), ids_(ids), file_(file), changes_(changes) {}

  /** 0 or errno; can be begun again after any of its calls. */
  int run();

 private:
  using Each = std::function<int(Record&)>;

  int each_record(size_t batch, const Each& each);
  int each_name(const Each& each);
  FileId now(FileId id) const;
  bool is_unknown(FileId id) const;
  bool is_new(FileId id) const;

  int know_files();
  int know(const UndoNote& note);
  int find_foreign();
  int put(const IdEntry& entry);
  int empty_names();
  int give_names();
  int give_content();
  int forget_files();

  Tree& tree_;
  Ids& ids_;
  UndoFile& file_;
  Changes& changes_;
  std::unordered_set<FileId> made_;           // by the resync, or so it seemed
  std::unordered_set<FileId> own_;            // ids of the log, of files that had none
  std::unordered_set<FileId> taken_;          // ids that such files got from the resync
  std::unordered_set<FileId> placed_;         // of all these: files that had a name before
  std::unordered_map<FileId, FileId> other_;  // ids of files that have another one now
};

}  // namespace holdfast::replica
