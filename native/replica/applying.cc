#include "replica/applying.h"

#include <cerrno>

#include "replica/orphanage.h"

namespace holdfast::replica {

Result<Tail> apply_journal(Tree& tree, Ids& ids, Super& super, const std::string& path,
                           uint64_t bytes) {
  using Outcome = Result<Tail>;
  const JournalPoint checkpoint = super.state().checkpoint;
  Journal journal(planted_faults());
  const auto made = journal.open(path, bytes);
  if (!made.ok()) return Outcome::failure(made.error, made.call);
  if (made.value && checkpoint.cursor > 0) return Outcome::failure(EBADMSG, "journal");
  const auto end = journal.recover(checkpoint, nullptr);
  if (!end.ok()) return Outcome::failure(end.error, end.call);
  Feed* fed = nullptr;
  ApplyingHooks hooks;
  hooks.failed = [&fed](const ApplyFailure& failure) { fed->fail(failure.error, failure.call); };
  Applying applying(tree, ids, std::move(hooks));
  FeedHooks feed_hooks;
  feed_hooks.save = [&super](const JournalPoint& point) {
    SuperState state = super.state();
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
  SuperState failed = super.state();
  failed.state = DiskState::failed;
  (void)super.save(failed);
  return Outcome::failure(point.error, feed.failed_call());
}

}  // namespace holdfast::replica
