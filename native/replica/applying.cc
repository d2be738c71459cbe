#include "replica/applying.h"

#include <cerrno>
#include <mutex>

#include "replica/orphanage.h"

namespace holdfast::replica {

Result<Tail> apply_journal(Tree& tree, Ids& ids, Super& super, const std::string& folder,
                           uint64_t bytes, Events& events) {
  using Outcome = Result<Tail>;
  const std::string path = folder + "/journal";
  const bool inconsistent = super.state().state == DiskState::inconsistent;
  if (inconsistent) {
    const auto ended = resync_ended(super, path, bytes);
    if (!ended.ok()) return Outcome::failure(ended.error, ended.call);
    if (!ended.value) return Outcome::failure(EUCLEAN, "resync");
  }
  const JournalPoint checkpoint = super.state().checkpoint;
  Journal journal(planted_faults());
  const auto made = journal.open(path, bytes);
  if (!made.ok()) return Outcome::failure(made.error, made.call);
  if (made.value && checkpoint.cursor > 0) return Outcome::failure(EBADMSG, "journal");
  const auto end = journal.recover(checkpoint, nullptr);
  if (!end.ok()) return Outcome::failure(end.error, end.call);

  TargetFiles files(tree, ids, super, folder, bytes, events);
  if (const int error = files.start(); error != 0) return Outcome::failure(error, "undo");
  std::mutex super_mutex;  // the feed's thread and the applier's save it
  Feed* fed = nullptr;
  ApplyingHooks hooks;
  hooks.failed = [&fed](const ApplyFailure& failure) { fed->fail(failure.error, failure.call); };
  hooks.synced = [&](const Record& record, const JournalPoint& point) {
    const std::lock_guard lock(super_mutex);
    bool counts = false;
    return save_synced(super, folder, record, point, &files, counts);
  };
  ApplyingOptions how;
  how.mode = inconsistent ? ApplyMode::resync : ApplyMode::replay;
  how.files = &files;
  Applying applying(tree, ids, std::move(hooks), std::move(how));
  FeedHooks feed_hooks;
  feed_hooks.save = [&](const JournalPoint& point) {
    const std::lock_guard lock(super_mutex);
    SuperState state = super.state();
    if (point.cursor < state.checkpoint.cursor) return 0;
    state.checkpoint = point;
    return super.save(state);
  };
  feed_hooks.moved = [] {};
  Feed feed(journal, applying, std::move(feed_hooks));
  fed = &feed;
  if (const int error = applying.start(checkpoint); error != 0)
    return Outcome::failure(error, "start");
  feed.start(checkpoint, end.value, {});
  const auto point = feed.finish();
  applying.stop();
  if (point.ok()) {
    // Nobody is left who would give a name to what has none yet.
    if (const int error = drop_nameless(tree, ids); error != 0) {
      return Outcome::failure(error, "orphanage");
    }
    return Outcome::success(point.value.tail);
  }
  // In the middle of a resync it stays so, and is tried again.
  if (super.state().state != DiskState::inconsistent) {
    SuperState failed = super.state();
    failed.state = DiskState::failed;
    (void)super.save(failed);
  }
  return Outcome::failure(point.error, feed.failed_call());
}

}  // namespace holdfast::replica
