#include <algorithm>
#include <cerrno>
#include <cstring>

#include "replica/applying.h"
#include "replica/copy_mark.h"
#include "replica/mirror.h"
#include "replica/mounts.h"
#include "replica/receiver.h"
#include "replica/scan.h"
#include "replica/target.h"
#include "replica/volumes.h"

/** role=second: the directories are read-only, and get the primary's changes. */
namespace holdfast::replica {

namespace {

constexpr int unmount_wait_ms = 2000;
constexpr size_t max_open_files = 4096;

const char* name_of(DiskState state) {
  switch (state) {
    case DiskState::none:
      return "none";
    case DiskState::in_sync:
      return "in_sync";
    case DiskState::outdated:
      return "outdated";
    case DiskState::failed:
      return "failed";
    case DiskState::inconsistent:
      return "inconsistent";
  }
  return "unknown";
}

class SecondRole final : public Role {
 public:
  SecondRole(RoleContext context, const OpenLine& line)
      : context_(context), line_(line), volumes_(context_, line_), tree_(ids_, max_open_files) {}
  ~SecondRole() override { (void)stop_receiving(); }

  Failure open() override;
  Failure close() override;
  void status(Line& line) const override;
  Failure cut(uint32_t ms) override {
    receiver_->cut(ms);
    return {};
  }

 private:
  Failure discard();
  Failure begin_history();
  Failure mount_all();
  ApplyingHooks hooks();
  Failure start_receiving();
  Failure stop_receiving();

  RoleContext context_;
  const OpenLine line_;
  Volumes volumes_;
  Ids ids_;
  Tree tree_;
  Super super_;
  bool fresh_ = false;
  Tail fresh_tail_;
  bool was_primary_ = false;  // and not stopped in order
  bool marks_lost_ = false;
  bool foreign_ = false;  // content without a history
  std::unique_ptr<TargetFiles> files_;
  std::unique_ptr<Applying> applying_;
  std::unique_ptr<Receiver> receiver_;
  std::atomic<bool> receiving_{false};
};

/**
 * `discard`: what this copy acknowledged alone is given up. It says from now on that it did not,
 * so it is rolled back; and it is outdated, so it is not made primary by mistake. Like a primary
 * that was not stopped in order it has changes that its marks name, and no others.
 */
Failure SecondRole::discard() {
  SuperState next = super_.state();
  bool alone = false;
  for (uint32_t i = 0; i < next.history_size; i++) {
    alone = alone || next.history[i].alone != 0;
    next.history[i].alone = 0;
  }
  if (next.state == DiskState::inconsistent || next.state == DiskState::none || !alone) {
    context_.events.warning("nothing to discard: this copy acknowledged nothing alone");
    return {};
  }
  if (next.role == uint32_t(RoleKind::second)) next.last = next.checkpoint.tail;
  if (next.state != DiskState::failed) next.state = DiskState::outdated;
  next.base = next.last;
  next.base_state = 0;
  next.role = uint32_t(RoleKind::prim);
  next.clean = 0;
  const int error = super_.save(next);
  return error == 0 ? Failure{} : Failure::of(error, volumes_.state_path("super"));
}

/** After what this copy's history goes on. */
Failure SecondRole::begin_history() {
  const SuperState& state = super_.state();
  if (state.state == DiskState::inconsistent) {
    if (state.resync == 0) {
      // What a failure, or the operator, began.
      const auto back = take_back(tree_, ids_, super_, line_.state, line_.journal, context_.events);
      if (!back.ok()) return Failure::of(back.error, std::string("taking back: ") + back.call);
    }
  }
  if (state.state == DiskState::inconsistent) {
    if (state.role == uint32_t(RoleKind::prim)) was_primary_ = true;
  } else if (state.role == uint32_t(RoleKind::prim)) {
    // Stopped in order with changes that its peer lacks, it has them all the same.
    was_primary_ = state.clean == 0 || state.base_state != 0;
    fresh_ = true;
    fresh_tail_ = state.last;
    ids_.forget_opens();
  } else if (state.state == DiskState::failed) {
    // What it had journaled and could not apply is not tried again: all is compared.
    fresh_ = true;
    fresh_tail_ = state.checkpoint.tail;
  } else if (state.role != uint32_t(RoleKind::second)) {
    for (size_t i = 0; i < volumes_.count(); i++) {
      const auto empty = is_empty(tree_, uint8_t(i));
      if (!empty.ok()) return Failure::of(empty.error, volumes_.dir(i));
      if (empty.value) continue;
      if (!line_.fullsync)
        return Failure::of("CONTENT", volumes_.dir(i) +
                                          " is not empty: a new secondary begins "
                                          "with empty directories");
      foreign_ = true;
    }
    fresh_ = true;
  } else if (state.state == DiskState::none) {
    foreign_ = true;  // a fullsync whose resync has not begun
  }
  marks_lost_ = state.state == DiskState::failed || foreign_ ||
                (was_primary_ && touched_by_primary(line_.state, ids_).everything);
  SuperState next = state;
  memcpy(next.set, line_.set, sizeof next.set);
  next.node = line_.node;
  // A copy that was found unfit stays so, whoever goes on with it.
  if (next.state == DiskState::none && !foreign_) next.state = DiskState::in_sync;
  next.epoch = std::max(state.epoch, line_.epoch);
  if (was_primary_) next.clean = 0;
  const int error = super_.save(next);
  return error == 0 ? Failure{} : Failure::of(error, volumes_.state_path("super"));
}

Failure SecondRole::mount_all() {
  for (size_t i = 0; i < volumes_.count(); i++) {
    if (volumes_.mounted(i)) continue;
    const int error = mount_read_only(volumes_.dir(i));
    if (error != 0) return Failure::of(error, "mounting read-only over " + volumes_.dir(i));
    if (Failure failure = volumes_.remember_mount(i); failure.failed()) return failure;
  }
  return {};
}

/** They run on the applier's thread, which starts and ends while the receiver is there. */
ApplyingHooks SecondRole::hooks() {
  ApplyingHooks hooks;
  hooks.applied = [this](Lsn lsn) { receiver_->applied(lsn); };
  hooks.replayed = [this](Lsn lsn) { receiver_->replayed(lsn); };
  hooks.failed = [this](const ApplyFailure& failure) {
    context_.events.event("warning", {{"text", "a change cannot be applied"},
                                      {"lsn", failure.lsn},
                                      {"file", failure.file},
                                      {"kind", failure.kind},
                                      {"errno", failure.error},
                                      {"call", failure.call}});
    receiver_->apply_failed(failure.error, failure.call);
  };
  hooks.checked = [this](const CheckResult& result) {
    receiver_->report(result.lsn, Frame::differs,
                      {reinterpret_cast<const uint8_t*>(&result), sizeof result});
  };
  hooks.missing = [this](const Missing& what, Lsn lsn) {
    receiver_->report(lsn, Frame::missing, missing_frame(what));
  };
  hooks.synced = [this](const Record& record, const JournalPoint& end) {
    return receiver_->synced(record, end);
  };
  return hooks;
}

Failure SecondRole::start_receiving() {
  files_ = std::make_unique<TargetFiles>(tree_, ids_, super_, line_.state, line_.journal,
                                         context_.events);
  if (const int error = files_->start(); error != 0)
    return Failure::of(error, volumes_.state_path("undo"));
  const bool inconsistent = super_.state().state == DiskState::inconsistent;
  ApplyingOptions how;
  how.mode = inconsistent ? ApplyMode::resync : ApplyMode::replay;
  how.files = files_.get();
  applying_ = std::make_unique<Applying>(tree_, ids_, hooks(), std::move(how));
  files_->on_stop([this] { applying_->stop(); });
  receiver_ = std::make_unique<Receiver>(super_, context_.events, *applying_, planted_faults());
  ReceiverOptions options;
  options.listen = line_.listen;
  options.tls = {line_.cert, line_.key, line_.ca};
  memcpy(options.set, line_.set, sizeof options.set);
  options.node = line_.node;
  for (size_t i = 0; i < volumes_.count(); i++)
    options.volumes.push_back(tree_.root_fd(uint8_t(i)));
  options.journal = volumes_.state_path("journal");
  options.journal_bytes = line_.journal;
  options.fresh = fresh_ ? &fresh_tail_ : nullptr;
  options.send_timeout_ms = line_.sendtimeout_ms;
  options.unfit = !inconsistent && (was_primary_ || marks_lost_ || foreign_);
  options.marks_lost = marks_lost_;
  options.folder = line_.state;
  options.resync = files_.get();
  const JournalPoint from = fresh_ ? JournalPoint{0, fresh_tail_} : super_.state().checkpoint;
  if (const int error = applying_->start(from); error != 0)
    return Failure::of(error, "starting to apply");
  const auto started = receiver_->start(options);
  if (!started.ok())
    return Failure::of(started.error, std::string("starting to receive: ") + started.call);
  receiving_ = true;
  return {};
}

Failure SecondRole::open() {
  if (Failure failure = volumes_.lock_state(); failure.failed()) return failure;
  const auto opened = super_.open(volumes_.state_path("super"));
  if (!opened.ok()) return Failure::of(opened.error, volumes_.state_path("super"));
  if (Failure failure = check_super(super_.state(), line_, context_.resume); failure.failed()) {
    // A worker before this one had the role already, also of a copy that still counts as a
    // primary's.
    if (!context_.resume || failure.code != "EPOCH") return failure;
  }
  // Once: a worker that goes on with this line finds that it was done.
  if (!context_.resume && line_.fullsync) {
    if (const int error = forget_copy(super_, line_.state); error != 0)
      return Failure::of(error, "forgetting the copy in " + line_.state);
  }
  if (!context_.resume && line_.discard) {
    if (Failure failure = discard(); failure.failed()) return failure;
  }
  const auto ids = ids_.open(volumes_.state_path("ids"));
  if (!ids.ok()) return Failure::of(ids.error, volumes_.state_path("ids"));
  if (Failure failure = volumes_.open(tree_); failure.failed()) return failure;
  if (Failure failure = begin_history(); failure.failed()) return failure;
  if (Failure failure = mount_all(); failure.failed()) return failure;
  if (Failure failure = start_receiving(); failure.failed()) return failure;
  context_.events.event("role", {{"role", "second"}, {"epoch", super_.state().epoch}});
  return {};
}

Failure SecondRole::stop_receiving() {
  Failure failure;
  if (receiving_.exchange(false)) {
    const auto tail = receiver_->stop();
    if (!tail.ok())
      failure = Failure::of(tail.error, std::string("the last checkpoint: ") + tail.call);
  }
  if (applying_) applying_->stop();
  return failure;
}

Failure SecondRole::close() {
  Failure failure = stop_receiving();
  for (size_t i = 0; i < volumes_.count(); i++) {
    const Failure one = volumes_.take_away(i, unmount_wait_ms);
    if (one.failed()) failure = one;
  }
  volumes_.forget();
  return failure;
}

void SecondRole::status(Line& line) const {
  line.add("role", "second").add("files", ids_.count());
  if (!receiving_) return;
  const ReceiverStatus now = receiver_->status();
  const ApplierCounters applied = applying_->counters();
  line.add("peer", now.connected ? "connected" : "lost");
  line.add("peer_node", uint64_t(now.peer_node)).add("epoch", now.epoch);
  line.add("failed", uint64_t(now.failed)).add("replaying", uint64_t(now.replaying));
  line.add("direct", uint64_t(now.direct));
  line.add("state", name_of(now.state)).add("resync", now.resync);
  if (now.state == DiskState::inconsistent) {
    const UndoStatus undo = files_->undo().status();
    line.add("base_epoch", now.base_epoch).add("base_lsn", now.base_lsn);
    line.add("undo_bytes", undo.bytes).add("missing", now.reports);
  }
  line.add("quarantined", files_->quarantined());
  line.add("last", now.received).add("received", now.received).add("durable", now.durable);
  line.add("applied", now.applied);
  line.add("journal_used", now.journal_used).add("journal_size", now.journal_size);
  line.add("journal_full", now.journal_full).add("writes", now.writes);
  line.add("written_bytes", now.written_bytes).add("barriers", now.barriers);
  line.add("acks", now.acks).add("connects", now.connects).add("refusals", now.refusals);
  line.add("protocol_errors", now.protocol_errors).add("checkpoints", now.checkpoints);
  line.add("read_back_bytes", now.read_back_bytes);
  line.add("write_last_us", uint64_t(now.write_last_ns / 1000));
  line.add("write_most_us", uint64_t(now.write_most_ns / 1000));
  line.add("records", applied.records).add("applied_bytes", applied.bytes);
  line.add("displaced", applied.displaced).add("skipped", applied.skipped);
  line.add("differences", applied.differences);
}

}  // namespace

std::unique_ptr<Role> make_second_role(RoleContext context, const OpenLine& line) {
  return std::make_unique<SecondRole>(context, line);
}

}  // namespace holdfast::replica
