#pragma once
#include <functional>
#include <string>

#include "replica/applier.h"
#include "replica/faults.h"
#include "replica/feed.h"
#include "replica/super.h"

/** The applier and those who feed it, put together. */
namespace holdfast::replica {

/** What the applier says, for whoever feeds it; called from its thread. */
struct ApplyingHooks {
  std::function<void(Lsn)> applied;
  std::function<void(Lsn)> replayed;
  std::function<void(const ApplyFailure&)> failed;
  std::function<void(const CheckResult&)> checked;
};

class Applying final : public ApplyTarget, public ApplierSink {
 public:
  Applying(Tree& tree, Ids& ids, ApplyingHooks hooks)
      : hooks_(std::move(hooks)), applier_(tree, ids, options(), *this) {}

  /** Begins with a replay from the checkpoint. 0 or errno. */
  int start(const JournalPoint& checkpoint) { return applier_.start(checkpoint, true); }
  void stop() { applier_.stop(); }
  ApplierCounters counters() const { return applier_.counters(); }

  bool submit(Batch batch) override { return applier_.submit(std::move(batch)); }
  bool end_replay() override { return applier_.end_replay(); }
  bool drain() override { return applier_.drain(); }
  Result<JournalPoint> checkpoint() override { return applier_.checkpoint(); }

  void applied(Lsn lsn) override { call(hooks_.applied, lsn); }
  void replayed(Lsn lsn) override { call(hooks_.replayed, lsn); }
  void failed(const ApplyFailure& failure) override { call(hooks_.failed, failure); }
  void checked(const CheckResult& result) override { call(hooks_.checked, result); }

 private:
  template <typename Hook, typename Value>
  static void call(const Hook& hook, const Value& value) {
    if (hook) hook(value);
  }

  static ApplierOptions options() {
    ApplierOptions options;
    options.faults = planted_faults();
    return options;
  }

  ApplyingHooks hooks_;
  Applier applier_;
};

/**
 * Brings the directories to the end of the journal, for a secondary that becomes primary: from the
 * superblock's checkpoint, which is saved anew at the end. The place in history where they are
 * then. Errors: of the journal, of a change that cannot be made (the superblock says `failed`).
 */
Result<Tail> apply_journal(Tree& tree, Ids& ids, Super& super, const std::string& journal,
                           uint64_t journal_bytes);

}  // namespace holdfast::replica
