#pragma once
#include <functional>
#include <string>

#include "replica/applier.h"
#include "replica/faults.h"
#include "replica/feed.h"
#include "replica/super.h"
#include "replica/target.h"

/** The applier and those who feed it, put together. */
namespace holdfast::replica {

/** What the applier says, for whoever feeds it; called from its thread. */
struct ApplyingHooks {
  std::function<void(Lsn)> applied;
  std::function<void(Lsn)> replayed;
  std::function<void(const ApplyFailure&)> failed;
  std::function<void(const CheckResult&)> checked;
  std::function<void(const Missing&, Lsn)> missing;
  std::function<int(const Record&, const JournalPoint&)> synced;
};

/** What a resync needs besides. */
struct ApplyingOptions {
  ApplyMode mode = ApplyMode::replay;  // resync: the superblock says inconsistent
  TargetFiles* files = nullptr;        // undo log and quarantine
  const Faults* faults = planted_faults();
};

class Applying final : public ApplyTarget, public ApplierSink {
 public:
  Applying(Tree& tree, Ids& ids, ApplyingHooks hooks, ApplyingOptions options = {})
      : hooks_(std::move(hooks)),
        mode_(options.mode),
        applier_(tree, ids, applier_options(options), *this) {}

  /** Begins with a replay from the checkpoint. 0 or errno. */
  int start(const JournalPoint& checkpoint) { return applier_.start(checkpoint, mode_); }
  void stop() { applier_.stop(); }
  ApplierCounters counters() const { return applier_.counters(); }

  bool submit(Batch batch) override { return applier_.submit(std::move(batch)); }
  bool end_replay() override { return applier_.end_replay(); }
  bool drain() override { return applier_.drain(); }
  Result<JournalPoint> checkpoint() override { return applier_.checkpoint(); }
  int begin_resync(const JournalPoint& at) override { return applier_.begin_resync(at); }

  void applied(Lsn lsn) override { call(hooks_.applied, lsn); }
  void replayed(Lsn lsn) override { call(hooks_.replayed, lsn); }
  void failed(const ApplyFailure& failure) override { call(hooks_.failed, failure); }
  void checked(const CheckResult& result) override { call(hooks_.checked, result); }
  void missing(const Missing& what, Lsn lsn) override {
    if (hooks_.missing) hooks_.missing(what, lsn);
  }
  int synced(const Record& record, const JournalPoint& end) override {
    return hooks_.synced ? hooks_.synced(record, end) : 0;
  }

 private:
  template <typename Hook, typename Value>
  static void call(const Hook& hook, const Value& value) {
    if (hook) hook(value);
  }

  static ApplierOptions applier_options(const ApplyingOptions& options) {
    ApplierOptions out;
    out.faults = options.faults;
    if (TargetFiles* files = options.files; files != nullptr) {
      out.undo = &files->undo();
      out.end_resync = [files](Changes& changes, const Record& synced) {
        return files->end(changes, synced);
      };
    }
    return out;
  }

  ApplyingHooks hooks_;
  ApplyMode mode_;
  Applier applier_;
};

/**
 * Brings the directories to the end of the journal, for a secondary that becomes primary: from the
 * superblock's checkpoint, which is saved anew at the end. The place in history where they are
 * then. Errors: of the journal, of a change that cannot be made (the superblock says `failed`).
 *
 * A copy in the middle of a resync: when the journal has the end of it, what follows was
 * acknowledged, so the resync is ended here and the copy is in sync. Otherwise EUCLEAN, and nothing
 * has changed: only `take_back` (target.h) makes it a whole copy again.
 */
Result<Tail> apply_journal(Tree& tree, Ids& ids, Super& super, const std::string& folder,
                           uint64_t journal_bytes, Events& events);

}  // namespace holdfast::replica
