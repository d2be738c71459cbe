#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "replica/ids.h"
#include "replica/orphanage.h"
#include "replica/record.h"
#include "replica/tree.h"

/**
 * The changes themselves, one after the other, by one thread (applier.h). Every record is a
 * statement: what a file has afterwards, which file a name is afterwards.
 *
 * In a replay the file system may be at any moment between the checkpoint and the journal's end,
 * and may be at several at once. That it converges rests on this, which holds before and after
 * each record: a name, a byte or an attribute that is not what it was at that moment of the history
 * is touched by a later record, and each record leaves what it touches as it says. So
 *
 * - a file that cannot be reached any more is one that a later record removes; the names that a
 *   record gives it are left empty, and are touched by that later record or their folder goes;
 * - a name that is another file is emptied by moving that file to the orphanage, never by removing
 *   it: it is a later file, or one whose other names are given by later records;
 * - a folder that would have to go below itself waits in the orphanage, and gets that name at the
 *   end unless a later record speaks of the folder. No later record need do so: it is a folder
 *   between the two that is not where it was, so that one is touched later, or waits itself. At the
 *   end every folder that does not wait is in its place, and those that wait lie in the orphanage
 *   itself: no name that is due can be below the folder that it is due to. Which folder waits is
 *   known to this process alone, so a replay may begin again before the record, not after it.
 *
 * In a resync the directories may be anything; the records are changes and, for everything that may
 * differ, statements, in any order. What a record cannot do because a file or a folder is not there
 * yet, or because a folder would have to go below itself, is left out and reported, and the source
 * states it again. It is done when nothing was reported that has not been stated since. Files are
 * known by their ids all the time: one that loses its last name is in the orphanage and keeps its
 * id until the resync ends, since a later statement may give it a name, or the undo log may.
 */
namespace holdfast::replica {

struct Faults;

/** The folder above, and what this one is called there. ESTALE: it has no name any more. */
int where_is(const OpenFile& folder, Fd& parent, std::string& name);

/** What is forgiven. */
enum class ApplyMode {
  normal,  // nothing: everything is as the records before said
  replay,  // the file system is somewhere between the checkpoint and the journal's end
  resync,  // as in a replay; what is not there is reported, and nothing is removed for good
};

/**
 * What a record speaks of and is not there. `file` alone: that file (a directory: with all that is
 * in it). With a name: what that name should be; `file` 0: the record does not say which file.
 * `adopted`: a foreign file of the right type stood at the name and is `file` from here on: its
 * attributes are to be stated, its data (a directory's names) to be compared.
 */
struct Missing {
  FileId file = 0;
  FileId parent = 0;  // 0: no name was spoken of
  std::string name;
  bool adopted = false;
};

class Changes {
 public:
  Changes(Tree& tree, Ids& ids, const Faults* faults);
  ~Changes();

  /** Looks for what a replay or resync that was cut short left. 0 or errno. */
  int begin(ApplyMode mode);
  /** Who hears what is missing in a resync; called from within `apply`. Changes of a file that is
   * not there report it once until it is there; what has a name, and statements, each time. */
  void on_missing(std::function<void(const Missing&)> missing) { missing_ = std::move(missing); }
  /** Makes one change (any kind but pad and check). 0 or errno; then `call` says what failed. */
  int apply(const Record& record);
  /** Sets the mtimes and access times that are still to be set. 0 or errno. */
  int flush_times();
  /** The same for one file. */
  int flush_times(FileId id);
  /** Empties the orphanages; from here on nothing is forgiven. 0 or errno. */
  int end_replay();
  /** The same after a resync; null: nothing is kept. Files that have not got a name yet stay. */
  int end_resync(const KeepOrphan& keep);
  /** A replay will begin after `saved`: what lost its last name before that may lose its id. */
  void checkpointed(Lsn saved);

  ApplyMode mode() const { return mode_; }
  /** A folder waits for a name that a record has given to it: a replay may not begin after that. */
  bool waits() const { return !waiting_.empty(); }
  const char* call() const { return call_; }
  uint64_t displaced() const { return displaced_; }
  uint64_t skipped() const { return skipped_; }
  uint64_t written() const { return written_; }

 private:
  struct Times {
    Time atime, mtime;
    bool has_atime = false, has_mtime = false;
  };
  /** What stands at a name. */
  struct Occupant {
    bool there = false;
    FileId id = 0;  // 0: not known
    struct stat attributes {};
  };
  struct Name;
  struct Place {
    FileId parent = 0;
    std::string name;
  };

  bool forgiving() const { return mode_ != ApplyMode::normal; }
  int fail(int error, const char* call) {
    call_ = call;
    return error;
  }
  /** The file; with `out` null and 0 when it is gone and that is forgiven. */
  int file(FileId id, FileRef& out);
  /** The same, and nobody is told. */
  int find(FileId id, FileRef& out);
  bool removed(FileId id, const OpenFile& file);
  Times& times(FileId id);
  void set_mtime(FileId id, const Time& mtime) {
    Times& at = times(id);
    at.mtime = mtime;
    at.has_mtime = true;
  }
  int set_times(FileId id, const Times& at);
  void forget(FileId id);
  void forget_unlinked();

  // changes.cc
  int write(const Record& record);
  int attributes(const Record& record);
  int allocate(const Record& record);
  int allocate_otherwise(int fd, const AllocateBody& body);
  int xattr(const Record& record);
  static int set_mode(const OpenFile& file, uint32_t mode);

  // names.cc
  int create(const Record& record);
  int create_away(const Record& record, Name& at);
  int link(const Record& record);
  int unlink(const Record& record);
  int rename(const Record& record);
  int rename_again(const Record& record);
  int parent_of(FileId id, std::string_view text, Name& out);
  int look(const Name& name, Occupant& out);
  void keep_mtime(const Occupant& was);
  int vacate(const Name& name, const Occupant& occupant);
  int give(const FileRef& file, FileId id, const Name& name);
  int move_folder(const FileRef& folder, FileId id, const Name& to);
  int end_waiting();
  int named(FileId id, const FileRef& file);
  int make(const CreateBody& body, std::string_view target, const Name& at, FileRef& out);
  int make_at(const Record& record, const Name& at);
  int set_owner(const OpenFile& file, const Record& record, const struct stat& now);
  int remove_folder(const Name& name);

  // statements.cc
  int entry(const Record& record);
  int adopt(FileId id, uint32_t type, const Name& at, FileRef& out);
  int inode(const Record& record);
  int make_nameless(const Record& record, FileRef& out);
  int set_all(const Record& record, const OpenFile& file);
  int set_xattrs(const Record& record, const OpenFile& file, bool& acl);
  int listing(const Record& record);
  int leave_out(const Name& at, bool root);
  void tell(FileId id, const Name* name = nullptr, bool adopted = false);
  void arrived(FileId id);

  Tree& tree_;
  Ids& ids_;
  const Faults* faults_;
  ApplyMode mode_ = ApplyMode::normal;
  std::function<void(const Missing&)> missing_;
  std::unordered_set<FileId> told_;  // missing, and reported without a name
  bool statement_ = false;           // the record that is being applied is one
  bool untidy_ = false;              // an orphanage may be empty
  const char* call_ = "";
  std::vector<Orphanage> orphanages_;
  std::unordered_map<FileId, Place> waiting_;  // in an orphanage, of a replay; folders alone
  std::unordered_map<FileId, Times> times_;
  FileId last_id_ = 0;
  Times* last_times_ = nullptr;
  std::deque<std::pair<Lsn, FileId>> nameless_;  // in the order of the records
  Lsn lsn_ = 0;
  uint64_t displaced_ = 0, skipped_ = 0, written_ = 0;
};

}  // namespace holdfast::replica
