#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/clock.h"
#include "replica/receiver.h"

/** The target's side of a resync: who it is, how it begins, what the source hears, how it ends. */
namespace holdfast::replica {
namespace {

// Marks in one frame.
constexpr size_t marks_at_once = 2048;
static_assert(sizeof(TouchedBody) + marks_at_once * sizeof(Mark) <= max_control);

Tail tail_of(const ResyncBody& body) {
  return {body.lsn, body.epoch, body.chain};
}

bool same(const Tail& a, const Tail& b) {
  return a.lsn == b.lsn && a.epoch == b.epoch && a.chain == b.chain;
}

void set_history(SuperState& state, const std::vector<EpochStart>& history) {
  std::copy(history.begin(), history.end(), state.history);
  state.history_size = static_cast<uint32_t>(history.size());
}

}  // namespace

/** What the superblock says now, for whoever asks without its lock. */
void Receiver::note(const SuperState& state) {
  run_ = state.state == DiskState::inconsistent ? state.resync : 0;
  base_epoch_ = state.base.epoch;
  base_lsn_ = state.base.lsn;
  state_ = state.state;
}

void Receiver::say_welcome(const Tail& tail) {
  const std::lock_guard lock(super_mutex_);
  const SuperState& state = super_.state();
  const bool inconsistent = state.state == DiskState::inconsistent;
  WelcomeBody welcome{};
  welcome.epoch = tail.epoch;
  welcome.durable = tail.lsn;
  welcome.chain = tail.chain;
  if (inconsistent) {
    welcome.resync = state.resync;
    welcome.base_epoch = state.base.epoch;
    welcome.base_lsn = state.base.lsn;
  }
  welcome.node = options_.node;
  welcome.state = static_cast<uint32_t>(state.state);
  if (was_primary(state)) welcome.flags |= welcome_was_primary;
  if (marks_lost_) welcome.flags |= welcome_marks_lost;
  welcome.history = state.history_size;
  std::vector<uint8_t> body(sizeof welcome + welcome.history * sizeof(EpochStart));
  std::memcpy(body.data(), &welcome, sizeof welcome);
  std::memcpy(body.data() + sizeof welcome, state.history, body.size() - sizeof welcome);
  channel_->post(Frame::welcome, body.data(), body.size());
}

/** What the primary told of the epochs is this copy's history too from now on. */
void Receiver::take_history(SuperState& state, Lsn before) const {
  if (!history_.empty()) {
    set_history(state, history_);
  } else if (state.history_size == 0 ||
             state.history[state.history_size - 1].epoch < hello_.epoch) {
    add_epoch(state, {hello_.epoch, before, hello_.node, 0});
  }
}

/**
 * What the source says that it heard, it may have heard from an earlier process. That one's journal
 * was applied again since, after a loss of power on other files, and what was reported then it has
 * not heard: the first connection of a process is told everything.
 */
void Receiver::begin_reports() {
  reports_.begin(reports_begun_ ? hello_.applied : 0);
  reports_begun_ = true;
}

/**
 * The first records of a connection, without a resync or in the middle of one: they go on where
 * this copy is. False: they cannot.
 */
bool Receiver::begin_records() {
  if (unfit_) return false;
  const Lsn before = journal_.end().tail.lsn;
  if (state_ == DiskState::inconsistent) {
    // Before a record that rests on it is taken: an epoch of the source that began meanwhile.
    if (!history_.empty() && save_origin(options_.folder, history_) != 0) return false;
    begin_reports();
    events_.event("resync", {{"state", "started"}, {"run", run_.load()}, {"kind", "resume"}});
  } else {
    const std::lock_guard lock(super_mutex_);
    SuperState next = super_.state();
    take_history(next, before);
    if (next.state == DiskState::none) next.state = DiskState::in_sync;
    if (super_.save(next) != 0) return false;
    note(next);
  }
  begun_ = true;
  return true;
}

/**
 * An outdated copy that a primary goes on with which acknowledges nothing without it: it is in sync
 * when it has what the primary had then.
 */
void Receiver::catch_up() {
  const bool alone = !history_.empty() && history_.back().alone != 0;
  if (state_ != DiskState::outdated || !begun_ || catching_up_ || alone) return;
  if (journal_.end().tail.lsn < hello_.last) return;
  const std::lock_guard lock(super_mutex_);
  SuperState next = super_.state();
  next.state = DiskState::in_sync;
  next.base = {};
  next.resync = 0;
  if (super_.save(next) != 0) return;
  note(next);
  events_.event("insync", {{"run", 0}, {"lsn", durable_.load()}, {"epoch", next.epoch}});
}

/** The frame `resync`. False: it is none that fits. */
bool Receiver::take_resync() {
  if (!channel_->body(asked_) || asked_.run == 0 || asked_.epoch > hello_.epoch) return false;
  if (begun_ || stage_ != Stage::none) return false;
  if (asked_.rejoin == static_cast<uint32_t>(Rejoin::catch_up)) return begin_catching_up();
  if (options_.resync == nullptr || options_.folder.empty()) return false;
  stage_ = Stage::resting;
  feed_.rest();
  return true;
}

/** The records go on here, but the primary acknowledges without this copy until `synced`. */
bool Receiver::begin_catching_up() {
  const Tail at = journal_.end().tail;
  if (unfit_ || state_ == DiskState::inconsistent || !same(tail_of(asked_), at)) return false;
  {
    const std::lock_guard lock(super_mutex_);
    SuperState next = super_.state();
    take_history(next, at.lsn);
    if (next.state != DiskState::outdated) next.base = at;
    next.state = DiskState::outdated;
    next.base_state = 0;
    if (super_.save(next) != 0) return false;
    note(next);
  }
  begun_ = catching_up_ = true;
  told_applied_ = 0;
  channel_->post(Frame::ready, ReadyBody{asked_.run, asked_.lsn});
  events_.event("resync", {{"state", "started"}, {"run", asked_.run}, {"kind", "catch_up"}});
  return true;
}

/** What a resync that begins waits for; and what its source waits for. */
void Receiver::go_on() {
  if (channel_ == nullptr || failed_) return;
  if (stage_ == Stage::resting) {
    // A rest that an earlier connection asked for may have come after records.
    if (!feed_.resting() || feed_.freed() != journal_.end().cursor) return;
    const int error = begin_resync();
    if (error != 0) {
      events_.warning("a resync cannot begin on this copy", error);
      return leave(Leave::apply, error);
    }
    if (failed_) return;
  }
  if (stage_ == Stage::telling) tell_touched();
  catch_up();
  if (!begun_ || stage_ != Stage::none || state_ == DiskState::in_sync) return;
  if (applied_ != told_applied_ && !channel_->sending()) acknowledge(journal_.end().tail.lsn);
}

/**
 * Everything that came is applied and is a checkpoint, and nobody works with files or journal.
 *
 * Cut short before the superblock is saved, this copy is as it was: its checkpoint is the journal's
 * end, so nothing is looked for in the journal, whose first block is zeros then; what lies in the
 * state folder is removed at the start (or, in the middle of an earlier run, is its own). Cut short
 * after that, it is in the middle of a resync that has had no record yet: the journal's first block
 * is zeros, so nothing in it follows the tail; the undo log is there; the source asks again.
 */
int Receiver::begin_resync() {
  SuperState next;
  {
    const std::lock_guard lock(super_mutex_);
    next = super_.state();
  }
  const bool anew = next.state != DiskState::inconsistent;
  int error = options_.resync->prepare(anew);
  if (error == 0) error = save_origin(options_.folder, history_);
  if (error == 0 && anew) error = reports_.clear();
  if (error != 0) return error;
  if (anew) {
    next.base = journal_.end().tail;
    next.base_state = static_cast<uint32_t>(next.state);
  }
  next.state = DiskState::inconsistent;
  next.resync = asked_.run;
  next.checkpoint = {0, tail_of(asked_)};
  error = journal_.reset(next.checkpoint.tail);
  if (error != 0) return fail(Leave::journal, error, "journal"), 0;
  {
    const std::lock_guard lock(super_mutex_);
    error = super_.save(next);
  }
  if (error != 0) return fail(Leave::journal, error, "super"), 0;
  note(next);
  unfit_ = false;
  ended_ = false;
  error = target_.begin_resync(next.checkpoint);
  if (error != 0) return fail(Leave::apply, error, "resync"), 0;
  intake_.clear();
  received_ = durable_ = applied_ = asked_.lsn;
  told_received_ = told_applied_ = asked_.lsn;
  used_ = journal_.used();
  begin_reports();
  feed_.restart(next.checkpoint);
  touched_ = was_primary(next) ? options_.resync->touched() : Marked();
  touched_at_ = 0;
  stage_ = Stage::telling;
  events_.event("resync", {{"state", "started"},
                           {"run", asked_.run},
                           {"kind", name_of(static_cast<Rejoin>(asked_.rejoin))}});
  return 0;
}

/** What a primary that was not stopped in order may have changed; then: ready. */
void Receiver::tell_touched() {
  const std::vector<Mark>& marks = touched_.marks;
  const bool any = touched_.everything || touched_.first_new != 0 || !marks.empty();
  while (any && !channel_->sending() && touched_at_ <= marks.size()) {
    const size_t count = std::min(marks.size() - touched_at_, marks_at_once);
    TouchedBody head{};
    head.run = asked_.run;
    head.first_new = touched_.first_new;
    head.count = static_cast<uint32_t>(count);
    head.everything = touched_.everything ? 1 : 0;
    std::vector<uint8_t> body(sizeof head + count * sizeof(Mark));
    std::memcpy(body.data(), &head, sizeof head);
    if (count > 0) {
      std::memcpy(body.data() + sizeof head, marks.data() + touched_at_, count * sizeof(Mark));
    }
    if (channel_->post(Frame::touched, body.data(), body.size()) == Io::closed) return;
    touched_at_ += count;
    if (touched_at_ == marks.size()) touched_at_++;  // that was the last frame
  }
  if (any && touched_at_ <= marks.size()) return;  // when the socket has room
  channel_->post(Frame::ready, ReadyBody{asked_.run, asked_.lsn});
  touched_ = {};
  stage_ = Stage::none;
  begun_ = true;
}

void Receiver::report(Lsn lsn, Frame type, std::span<const uint8_t> body) {
  if (state_ != DiskState::inconsistent) return send(type, body.data(), body.size());
  reports_.add(lsn, type, body);
}

/** What the source has not heard on this connection; true when all of it is on its way. */
bool Receiver::tell_reports() {
  if (state_ != DiskState::inconsistent) return true;
  if (reports_.take_lost()) {
    channel_->post(Frame::touched, TouchedBody{run_, 0, 0, 1});
  }
  Report report;
  while (!channel_->sending()) {
    if (!reports_.next(report)) return true;
    if (channel_->post(report.type, report.body.data(), report.body.size()) == Io::closed) {
      return false;
    }
  }
  return !reports_.more();
}

/**
 * `synced` was applied; all before it is durable in the files. From here on this copy is what its
 * source is, history and all. Cut short before the superblock is saved, `synced` is applied again;
 * after that, what lies in the state folder is removed at the start.
 */
int Receiver::synced(const Record& record, const JournalPoint& end) {
  bool counts = false;
  {
    const std::lock_guard lock(super_mutex_);
    const int error = save_synced(super_, options_.folder, record, end, options_.resync, counts);
    if (error != 0 || !counts) return error;
    note(super_.state());
    // What it may have had more is gone: a primary that connects anew need not compare it again.
    marks_lost_ = false;
  }
  ended_ = false;
  // The file may be gone already.
  const int error = reports_.clear();
  if (error != 0) events_.warning("the reports of a resync that is over stay", error);
  events_.event(
      "insync",
      {{"run", record.synced.run}, {"lsn", record.head.lsn}, {"epoch", record.synced.epoch}});
  const ReadyBody whole{record.synced.run, record.head.lsn};
  send(Frame::whole, &whole, sizeof whole);
  return 0;
}

/** A resync that cannot go on here: back to what this copy was. */
void Receiver::take_back() {
  feed_.stop();
  const int error = options_.resync->take_back();
  note(super_.state());
  if (error != 0) {
    events_.warning("this copy cannot be taken back to what it was: it stays inconsistent", error);
  }
}

}  // namespace holdfast::replica
