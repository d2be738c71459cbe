#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "replica/changes.h"
#include "replica/events.h"
#include "replica/faults.h"
#include "replica/journal.h"
#include "replica/target.h"

/** The files of a resync's target: what it may have changed, and the way back. */
namespace holdfast::replica {
namespace {

// More marks than that are told as "everything".
constexpr size_t max_touched = 1u << 20;

struct Made {
  Marked* out;
  FileId first;
};

/** Everything about a file that this server made as a primary. */
bool add_made(void* context, const IdEntry& entry) {
  auto& made = *static_cast<Made*>(context);
  if (entry.id < made.first || (entry.flags & id_local) != 0) return true;
  std::vector<Mark>& marks = made.out->marks;
  marks.push_back({entry.id, 0, static_cast<uint32_t>(MarkWhat::inode)});
  if (S_ISREG(entry.type)) {
    marks.push_back({entry.id, mark_whole, static_cast<uint32_t>(MarkWhat::data)});
  }
  if (S_ISDIR(entry.type)) {
    marks.push_back({entry.id, 0, static_cast<uint32_t>(MarkWhat::names)});
  }
  return marks.size() <= max_touched;
}

}  // namespace

Marked touched_by_primary(const std::string& folder, const Ids& ids) {
  Result<Marked> read = Marks::read(folder);
  Marked marked = std::move(read.value);
  // A primary that was not stopped in order leaves a generation. Without one it is not known what
  // it did: the folder was tampered with, or belongs to a version without marks.
  if (!read.ok() || marked.generations == 0) marked.everything = true;
  if (!marked.everything && marked.first_new != 0) {
    Made made{&marked, marked.first_new};
    ids.for_each(add_made, &made);
  }
  if (marked.marks.size() > max_touched) marked.everything = true;
  if (marked.everything) marked.marks.clear();
  return marked;
}

void TargetFiles::note_base(DiskState state) {
  foreign_ = state == DiskState::none;
  was_primary_ = super_.state().role == 1 && super_.state().clean == 0;
}

int TargetFiles::start() {
  SuperState state = super_.state();
  if (state.state != DiskState::inconsistent) return remove_rest(folder_);
  note_base(static_cast<DiskState>(state.base_state));
  const Result<bool> opened = undo_.open(undo_path());
  if (opened.ok()) return 0;
  if (opened.error != EBADMSG) return opened.error;
  events_.warning("the undo log is damaged: this copy cannot be taken back to what it was");
  state.base_state = static_cast<uint32_t>(DiskState::failed);
  if (const int error = super_.save(state); error != 0) return error;
  if (unlink(undo_path().c_str()) != 0 && errno != ENOENT) return errno;
  return undo_.open(undo_path()).error;
}

int TargetFiles::prepare(bool anew) {
  if (!anew && undo_.is_open()) return 0;
  if (anew) {
    note_base(super_.state().state);
    // One that was not removed in time would lead somewhere else.
    if (const int error = undo_.discard(); error != 0) return error;
    if (unlink(undo_path().c_str()) != 0 && errno != ENOENT) return errno;
  }
  return undo_.open(undo_path()).error;
}

Marked TargetFiles::touched() {
  return touched_by_primary(folder_, ids_);
}

/** Parts of files that the primary of before may have written after the common point. */
std::vector<Overwritten> TargetFiles::overwritten(const Marked& marked) const {
  std::vector<Overwritten> files;
  for (const Mark& mark : marked.marks) {
    if (mark.what != static_cast<uint32_t>(MarkWhat::data)) continue;
    if (marked.first_new != 0 && mark.file >= marked.first_new) continue;
    if (files.empty() || files.back().file != mark.file) files.push_back({mark.file, {}});
    const bool whole = mark.region == mark_whole;
    const uint64_t from = whole ? 0 : mark.region * mark_region;
    const uint64_t to = whole ? uint64_t{INT64_MAX} : from + mark_region;
    auto& ranges = files.back().ranges;
    if (!ranges.empty() && ranges.back().second >= from) {
      ranges.back().second = std::max(ranges.back().second, to);
    } else {
      ranges.emplace_back(from, to);
    }
  }
  return files;
}

int TargetFiles::end(Changes& changes, const Record& synced) {
  UndoPaths paths(tree_, ids_);
  if (const int error = undo_.paths(paths); error != 0) return error;
  Marked marked;
  if (was_primary_) marked = Marks::read(folder_).value;
  QuarantineOptions options;
  options.epoch = synced.synced.epoch;
  options.now_s = time(nullptr);
  options.own_from = marked.first_new;
  // Where it is not known what it made, nothing that is left is taken for the source's.
  const bool lost = was_primary_ && (marked.everything || marked.generations == 0);
  options.everything = foreign_ || lost;
  Quarantine quarantine(tree_, ids_, paths, options);
  const auto keep = [&](const Orphan& orphan, bool& kept) { return quarantine.keep(orphan, kept); };
  if (const int error = changes.end_resync(keep); error != 0) return error;
  std::vector<Overwritten> files = overwritten(marked);
  uint64_t ranges = 0;
  for (const Overwritten& file : files) ranges += file.ranges.size();
  const size_t count = files.size();
  int error = count == 0 ? 0 : quarantine.overwritten(std::move(files));
  if (error == 0) error = quarantine.finish();
  if (error != 0) return error;
  if (was_primary_) events_.event("rolled_back", {{"files", count}, {"ranges", ranges}});
  if (!quarantine.folder().empty()) {
    events_.event("quarantined", {{"files", quarantine.files()}, {"folder", quarantine.folder()}});
  }
  quarantined_ = quarantine.files();
  return 0;
}

int TargetFiles::take_back() {
  if (stop_) stop_();
  const Result<Tail> back =
      replica::take_back(tree_, ids_, super_, undo_, folder_, journal_bytes_, events_);
  return back.error;
}

void TargetFiles::finished() {
  // What stays is removed at the next start, or by the next resync.
  int error = undo_.discard();
  if (error == 0) error = remove_rest(folder_);
  if (error == 0) error = Marks::remove(folder_);
  if (error != 0) events_.warning("files of a resync that is over stay", error);
}

Result<Tail> take_back(Tree& tree, Ids& ids, Super& super, Undo& undo, const std::string& folder,
                       uint64_t journal_bytes, Events& events) {
  using Outcome = Result<Tail>;
  SuperState state = super.state();
  if (state.state != DiskState::inconsistent) return Outcome::failure(EINVAL, "take_back");
  // From here on no source may go on with the run: what it had applied is about to go.
  state.resync = 0;
  if (const int error = super.save(state); error != 0) return Outcome::failure(error, "super");
  Changes changes(tree, ids, planted_faults());
  if (const int error = undo.take_back(changes); error != 0) {
    return Outcome::failure(error, "undo");
  }
  if (const int error = tree.sync_all(); error != 0) return Outcome::failure(error, "syncfs");
  if (const int error = ids.sync(); error != 0) return Outcome::failure(error, "fdatasync(ids)");
  // A superblock that still says inconsistent, with run 0, is taken back once more, whatever the
  // journal has; so the journal goes first.
  Journal journal(planted_faults());
  const Result<bool> made = journal.open(folder + "/journal", journal_bytes);
  if (!made.ok()) return Outcome::failure(made.error, made.call);
  if (const int error = journal.reset(state.base); error != 0) {
    return Outcome::failure(error, "journal");
  }
  const auto before = static_cast<DiskState>(state.base_state);
  state.state = before == DiskState::in_sync ? DiskState::outdated : before;
  state.base_state = 0;
  state.checkpoint = {0, state.base};
  if (const int error = super.save(state); error != 0) return Outcome::failure(error, "super");
  events.event("took_back", {{"epoch", state.base.epoch}, {"lsn", state.base.lsn}});
  // What stays of it is removed at the next start.
  int error = undo.discard();
  if (error == 0) error = remove_rest(folder);
  if (error != 0) events.warning("files of a resync that is over stay", error);
  return Outcome::success(state.base);
}

Result<Tail> take_back(Tree& tree, Ids& ids, Super& super, const std::string& folder,
                       uint64_t journal_bytes, Events& events) {
  TargetFiles files(tree, ids, super, folder, journal_bytes, events);
  if (super.state().state != DiskState::inconsistent) {
    return Result<Tail>::failure(EINVAL, "take_back");
  }
  if (const int error = files.start(); error != 0) return Result<Tail>::failure(error, "undo");
  return take_back(tree, ids, super, files.undo(), folder, journal_bytes, events);
}

}  // namespace holdfast::replica
