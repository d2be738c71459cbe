#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "replica/ids.h"
#include "replica/marks.h"
#include "replica/quarantine.h"
#include "replica/super.h"
#include "replica/tree.h"
#include "replica/undo.h"

/**
 * What the target of a resync keeps in its state folder until the resync is over, and the way back.
 *
 *   undo      how everything was (undo.h)
 *   origin    the history of the source, which becomes this copy's at the end
 *   reports   what the source has to hear (reports.h)
 *   marks-N   of a server that was primary and was not stopped in order (marks.h)
 *
 * While the superblock says `inconsistent`, its `resync` is the number of the run that goes on; 0:
 * the copy is being taken back, which is begun again wherever it was cut short. `base` is where it
 * gets to. With the record `synced` of the run in the journal there is no way back any more: what
 * follows it was acknowledged.
 */
namespace holdfast::replica {

class Changes;
class Events;
struct Missing;

/** What the receiver asks of the files in a resync. The receiving thread, but `finished`. */
class ResyncSide {
 public:
  virtual ~ResyncSide() = default;
  /** Nothing is being applied. `anew`: nothing is left of an earlier run, and the undo log is
   * begun; else it goes on. Durable when it returns 0. */
  virtual int prepare(bool anew) = 0;
  /** What only this copy may have changed, as marks. */
  virtual Marked touched() = 0;
  /** Applying has stopped, or is stopped by this: everything back, and the superblock says so. */
  virtual int take_back() = 0;
  /** The superblock says `in_sync`: what was kept goes, the marks too. The applier's thread. */
  virtual void finished() = 0;
};

/** The same, for real files. */
class TargetFiles final : public ResyncSide {
 public:
  /** All outlive it. `journal_bytes`: of the journal in the folder. */
  TargetFiles(Tree& tree, Ids& ids, Super& super, std::string folder, uint64_t journal_bytes,
              Events& events)
      : tree_(tree),
        ids_(ids),
        super_(super),
        folder_(std::move(folder)),
        journal_bytes_(journal_bytes),
        events_(events),
        undo_(tree, ids) {}

  /**
   * At the start, before anything is applied: goes on with the undo log of a resync that is under
   * way; without one, removes what an earlier one left. 0 or errno. A damaged undo log is begun
   * anew, and then the copy cannot get back to what it was: `failed` is what it would get back to.
   */
  int start();
  Undo& undo() { return undo_; }
  /** Files that the last resync moved to the quarantine. */
  uint64_t quarantined() const { return quarantined_; }
  /** What takes an applier to its end; for `take_back`. */
  void on_stop(std::function<void()> stop) { stop_ = std::move(stop); }

  /**
   * The end of a resync, when `synced` is applied: what is left in the orphanage goes, or to the
   * quarantine (events `quarantined`, `rolled_back`), durably. 0 or errno. Cut short, it is begun
   * again: what was moved is there in two folders' manifests at most. The applier's thread.
   */
  int end(Changes& changes, const Record& synced);

  int prepare(bool anew) override;
  Marked touched() override;
  int take_back() override;
  void finished() override;

 private:
  std::string undo_path() const { return folder_ + "/undo"; }
  void note_base(DiskState state);
  std::vector<Overwritten> overwritten(const Marked& marked) const;

  Tree& tree_;
  Ids& ids_;
  Super& super_;
  const std::string folder_;
  const uint64_t journal_bytes_;
  Events& events_;
  Undo undo_;
  std::function<void()> stop_;
  std::atomic<uint64_t> quarantined_{0};
  bool foreign_ = false;      // before the resync it was no copy of this mirror
  bool was_primary_ = false;  // and was not stopped in order
};

/** Body of a `missing` frame. */
std::vector<uint8_t> missing_frame(const Missing& what);
/** Saves a history in the state folder, durably. 0 or errno. */
int save_origin(const std::string& folder, const std::vector<EpochStart>& history);
/** The history that was saved. EBADMSG: it is damaged; ENOENT: there is none. */
int load_origin(const std::string& folder, std::vector<EpochStart>& out);
/** Removes `undo`, `origin` and `reports`, as they are after a resync. 0 or errno. */
int remove_rest(const std::string& folder);

/**
 * What this server may have changed as a primary: its marks, and everything about each file that it
 * made (a region `mark_whole`, since the file may be shorter here than the peer has it).
 */
Marked touched_by_primary(const std::string& folder, const Ids& ids);

/**
 * What the superblock says once `synced` is applied: the history of the source, in sync, and a
 * replay begins at `end`; then `files.finished()`. False in `counts`: the record says nothing about
 * this copy (another run's, or applied again). 0 or errno.
 */
int save_synced(Super& super, const std::string& folder, const Record& record,
                const JournalPoint& end, ResyncSide* files, bool& counts);

/** True when the journal has the end of the resync that the superblock speaks of. Also an error. */
Result<bool> resync_ended(const Super& super, const std::string& journal, uint64_t bytes);

/**
 * Brings an inconsistent copy back to `base`: the undo log, the journal begun anew, the superblock
 * (state as before the resync; `outdated` where it was in sync), event `took_back`. Nothing else
 * works with the files meanwhile. Cut short, it is begun again: 0 only when all of it is durable.
 * Where the copy is then. EINVAL: it is not inconsistent. Errors: of the undo log, of a write.
 */
Result<Tail> take_back(Tree& tree, Ids& ids, Super& super, const std::string& folder,
                       uint64_t journal_bytes, Events& events);
/** The same with an undo log that is open already. */
Result<Tail> take_back(Tree& tree, Ids& ids, Super& super, Undo& undo, const std::string& folder,
                       uint64_t journal_bytes, Events& events);

}  // namespace holdfast::replica
