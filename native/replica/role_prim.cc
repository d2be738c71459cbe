#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "replica/applying.h"
#include "replica/comparison.h"
#include "replica/copy_mark.h"
#include "replica/distant.h"
#include "replica/front.h"
#include "replica/link.h"
#include "replica/marks.h"
#include "replica/mirror.h"
#include "replica/rejoining.h"
#include "replica/scan.h"

/** role=prim: the directories are mounted and served, every change goes to the other server. */
namespace holdfast::replica {

namespace {

constexpr int64_t drain_ms = 5000;
/** With the farewell, less than a second. */
constexpr int64_t distant_drain_ms = 700;

bool same(const Tail& a, const Tail& b) {
  return a.lsn == b.lsn && a.epoch == b.epoch && a.chain == b.chain;
}

class PrimRole final : public Role {
 public:
  PrimRole(RoleContext context, const OpenLine& line)
      : context_(context),
        line_(line),
        front_(context_, line_),
        distant_(line_, front_, context_.events) {}
  ~PrimRole() override {
    // Their threads call each other.
    distant_.stop(0);
    if (link_) link_->stop(0);
    if (marks_) marks_->stop();
  }

  Failure open() override;
  Failure close() override;
  void status(Line& line) const override;
  Failure alone(uint64_t epoch) override;
  Failure joined(uint64_t epoch) override;
  Failure verify() override;
  Failure cut(uint32_t ms) override {
    link_->cut(ms);
    return {};
  }

 private:
  /** How a history begins. */
  struct Beginning {
    Tail tail;          // after what it goes on
    bool scan = false;  // files may be there that have no id
    bool left = false;  // the peer lacks more than the ring will have, or may
    Lsn since = 0;      // then: what changed after this is dirty
    MainBegins how = MainBegins::anew;
  };

  Failure take_content();
  Failure check();
  Failure begin_history();
  Failure begin_distant(MainBegins how, const SuperState& main) {
    return distant_.begin(how, main, context_.shared->ring_size);
  }
  Failure leave_resync();
  Failure find_beginning(Beginning& out);
  void after_marks(Beginning& out);
  void after_stop(Beginning& out);
  Failure give_ids();
  Failure save_beginning(const Beginning& from);
  Failure save_end();
  Failure open_marks();
  Failure start_link();

  RoleContext context_;
  const OpenLine line_;
  Front front_;
  DistantCopies distant_;
  Super super_;
  std::unique_ptr<Ring> ring_;
  std::unique_ptr<Rejoiner> rejoiner_;
  std::unique_ptr<Marks> marks_;
  std::unique_ptr<Link> link_;
  std::atomic<Link*> linked_{nullptr};
  std::unique_ptr<Comparison> comparison_;
};

/** What the superblock says against being the primary with this line. */
Failure PrimRole::check() {
  const SuperState& state = super_.state();
  if (Failure failure = check_super(state, line_, context_.resume); failure.failed()) {
    // With the end of its resync in the journal it is a whole copy, and what follows that was
    // acknowledged.
    if (failure.code != "STATE" || state.state != DiskState::inconsistent) return failure;
    const auto ended = resync_ended(super_, front_.volumes().state_path("journal"), line_.journal);
    if (!ended.ok() || !ended.value) return failure;
  }
  if (context_.resume && state.role == uint32_t(RoleKind::prim)) return {};
  const bool fresh = state.state == DiskState::none;
  const bool again = state.role == uint32_t(RoleKind::prim) && state.clean != 0;
  if (line_.epoch == state.epoch && !fresh && !again)
    return Failure::of("EPOCH",
                       "a primary that was not stopped in order, or was a secondary, "
                       "needs a new epoch");
  return {};
}

/** Records after the tail may be in files here and in the peer's journal, and are known to nobody:
 * this history goes on elsewhere, and what the marks name is dirty. */
void PrimRole::after_marks(Beginning& out) {
  const SuperState& state = super_.state();
  out.tail = {out.tail.lsn + unclean_jump, out.tail.epoch, random_chain()};
  out.scan = out.left = true;
  const auto marked = Marks::read(line_.state);
  rejoiner_->own_marks();
  // A primary has marks from before it is one.
  if (marked.ok() && marked.value.generations == 0) rejoiner_->compare_all();
  out.since = marked.ok() ? marked.value.since : 0;
  if (state.role == uint32_t(RoleKind::prim) && state.base_state != 0)
    out.since = std::min(out.since, state.base.lsn);
  context_.events.warning("this primary was not stopped in order: its peer is made equal");
}

/** After a primary that was stopped in order: what its peer lacked then was saved. */
void PrimRole::after_stop(Beginning& out) {
  const SuperState& state = super_.state();
  out.tail = state.last;
  if (state.base_state == 0) return;
  out.left = true;
  out.since = state.base.lsn;
  if (const int error = rejoiner_->load(); error != 0) {
    context_.events.warning("what changed while this primary was alone cannot be read", error);
    rejoiner_->own_marks();
  }
}

/** A copy in the middle of a resync: to its end, when the journal has that, or back to before. */
Failure PrimRole::leave_resync() {
  const auto end = apply_journal(front_.tree(), front_.ids(), super_, line_.state, line_.journal,
                                 context_.events);
  if (end.ok()) return {};
  if (end.error != EUCLEAN || super_.state().state != DiskState::inconsistent)
    return Failure::of(end.error, std::string("ending the resync: ") + end.call);
  const auto back =
      take_back(front_.tree(), front_.ids(), super_, line_.state, line_.journal, context_.events);
  return back.ok() ? Failure{}
                   : Failure::of(back.error, std::string("taking the resync back: ") + back.call);
}

/** After what the history of this primary goes on, and the files as they were then. */
Failure PrimRole::find_beginning(Beginning& out) {
  const SuperState& state = super_.state();
  if (state.state == DiskState::inconsistent) {
    if (Failure failure = leave_resync(); failure.failed()) return failure;
  }
  if (state.role == uint32_t(RoleKind::second)) {
    // What this server acknowledged as a secondary is in its journal.
    const auto end = apply_journal(front_.tree(), front_.ids(), super_, line_.state, line_.journal,
                                   context_.events);
    if (!end.ok()) return Failure::of(end.error, std::string("applying the journal: ") + end.call);
    out.tail = end.value;
    // Of a primary before, that was pulled and never made equal.
    const auto marked = Marks::read(line_.state);
    if (!marked.ok() || marked.value.generations > 0 || marked.value.everything) after_marks(out);
  } else if (state.state == DiskState::none) {
    bool empty = true;
    for (size_t i = 0; i < front_.volumes().count(); i++) {
      const auto one = is_empty(front_.tree(), uint8_t(i));
      if (!one.ok()) return Failure::of(one.error, front_.volumes().dir(i));
      empty = empty && one.value;
    }
    // A secondary begins empty, at the chain 0: content that it has not must not look the same.
    out.tail = {0, 0, empty ? 0 : random_chain()};
    out.scan = !empty;
  } else if (state.clean != 0) {
    out.how = MainBegins::stopped;
    after_stop(out);
  } else {
    out.how = MainBegins::crashed;
    out.tail = state.last;
    after_marks(out);
  }
  return out.scan ? give_ids() : Failure{};
}

Failure PrimRole::give_ids() {
  Skip skip;
  for (const std::string& rule : line_.skip) {
    if (const int error = skip.add(rule); error != 0) return Failure::of(error, "skip");
  }
  const auto found = scan_ids(front_.tree(), front_.ids(), line_.epoch, skip);
  if (!found.ok()) return Failure::of(found.error, "giving ids to the files");
  const int error = front_.ids().sync();
  return error == 0 ? Failure{} : Failure::of(error, front_.volumes().state_path("ids"));
}

/** Ring and superblock of this epoch. */
Failure PrimRole::begin_history() {
  ring_ = std::make_unique<Ring>(context_.shared, context_.arena);
  rejoiner_ =
      std::make_unique<Rejoiner>(front_.tree(), front_.ids(), context_.events,
                                 uint32_t(front_.volumes().count()), line_.state, line_.resyncrate);
  const SuperState old = super_.state();
  // A superblock that is clean was never saved for this serving: the worker died before that.
  if (context_.resume && old.role == uint32_t(RoleKind::prim) && old.clean == 0 &&
      ring_->intact() &&
      (context_.shared->role == uint32_t(RoleKind::prim) || same(ring_->last(), old.last))) {
    // What was dirty was known to the worker that died only; the marks cover it.
    if (old.base_state != 0) rejoiner_->own_marks();
    if (Failure failure = begin_distant(MainBegins::crashed, old); failure.failed()) return failure;
    if (Failure failure = open_marks(); failure.failed()) return failure;
    return distant_.save_beginning(old);
  }
  Beginning from;
  if (Failure failure = find_beginning(from); failure.failed()) return failure;
  if (Failure failure = begin_distant(from.how, old); failure.failed()) return failure;
  ring_->reset(from.tail);
  // Before the superblock says that this is a primary: from then on it must have marks.
  if (Failure failure = open_marks(); failure.failed()) return failure;
  if (Failure failure = save_beginning(from); failure.failed()) return failure;
  return distant_.save_beginning(super_.state());
}

Failure PrimRole::save_beginning(const Beginning& from) {
  const SuperState& old = super_.state();
  SuperState next = old;
  memcpy(next.set, line_.set, sizeof next.set);
  next.node = line_.node;
  // A copy that was found unfit stays so, whoever goes on with it; but who forces it, has it.
  if (next.state == DiskState::outdated && line_.force)
    context_.events.warning("this copy was outdated and is the primary's by force");
  if (next.state == DiskState::none || next.state == DiskState::outdated)
    next.state = DiskState::in_sync;
  next.role = uint32_t(RoleKind::prim);
  next.clean = 0;
  next.last = from.tail;
  next.base = {from.since, 0, 0};
  next.base_state = from.left ? 1 : 0;
  next.resync = 0;
  if (line_.epoch > old.epoch) {
    next.epoch = line_.epoch;
    next.required_peer = 1;
    add_epoch(next, {line_.epoch, from.tail.lsn, line_.node, 0});
  }
  const int error = super_.save(next);
  return error == 0 ? Failure{} : Failure::of(error, front_.volumes().state_path("super"));
}

Failure PrimRole::open_marks() {
  MarksOptions options;
  options.epoch = front_.id_epoch();
  options.generation_marks = line_.marks;
  options.last = [this] { return ring_->last().lsn; };
  options.sync = [this] {
    const int error = front_.tree().sync_all();
    Link* link = linked_.load();
    if (error != 0 && link != nullptr) link->local_failed(error, "syncfs");
    return error != 0 ? error : front_.ids().sync();
  };
  options.copies = 1 + distant_.count();
  options.faults = planted_faults();
  marks_ = std::make_unique<Marks>(front_.ids(), options);
  // Until the links say whether the copies follow.
  for (uint32_t copy = 0; copy < options.copies; copy++) marks_->keep(true, copy);
  rejoiner_->set_marks(marks_.get());
  const auto opened = marks_->open(line_.state);
  return opened.ok() ? Failure{} : Failure::of(opened.error, "the marks in " + line_.state);
}

Failure PrimRole::start_link() {
  LinkOptions options;
  options.peer = line_.peer;
  options.tls = {line_.cert, line_.key, line_.ca};
  options.strict = line_.strict;
  options.second = line_.async_second;
  options.send_timeout_ms = line_.sendtimeout_ms;
  options.lock_timeout_ms = line_.locktimeout_ms;
  memcpy(options.set, line_.set, sizeof options.set);
  options.node = line_.node;
  options.volumes = uint32_t(front_.volumes().count());
  options.epoch = line_.epoch;
  options.decided = line_.decided;
  link_ = std::make_unique<Link>(*ring_, super_, context_.events, planted_faults());
  comparison_ = std::make_unique<Comparison>(front_.tree(), front_.ids(), *link_, context_.events);
  options.differs = [this](std::span<const uint8_t> body) { comparison_->found(body); };
  options.peer_has = [this](Lsn durable) { marks_->peer_has(durable); };
  options.rejoining = rejoiner_.get();
  options.change_p99_ns = [this] { return front_.change_p99_ns(); };
  const auto started = link_->start(options);
  if (!started.ok()) return Failure::of(started.error, std::string("the link: ") + started.call);
  if (distant_.any()) {
    Failure failure = distant_.start(*link_, options, *marks_);
    if (failure.failed()) return failure;
  }
  linked_ = link_.get();
  return {};
}

/**
 * By force this server is primary with what is in its directories, also where they are others than
 * those of its copy: restored from a backup, say. Then its history begins anew.
 */
Failure PrimRole::take_content() {
  if (Failure failure = check_set(super_.state(), line_, false); failure.failed()) return failure;
  const auto look = [this](bool force) {
    return look_at_directories(line_.state, line_.dirs, force);
  };
  if (look(false).code != "VOLUME") return {};
  if (Failure failure = look(true); failure.failed()) return failure;
  context_.events.warning("other directories than those of this copy are the primary's by force");
  const int error = forget_copy(super_, line_.state);
  return error == 0 ? Failure{} : Failure::of(error, "forgetting the copy in " + line_.state);
}

Failure PrimRole::open() {
  if (Failure failure = front_.volumes().lock_state(); failure.failed()) return failure;
  const auto opened = super_.open(front_.volumes().state_path("super"));
  if (!opened.ok()) return Failure::of(opened.error, front_.volumes().state_path("super"));
  if (line_.force && !context_.resume) {
    if (Failure failure = take_content(); failure.failed()) return failure;
  }
  if (Failure failure = front_.open_files(); failure.failed()) return failure;
  if (Failure failure = check(); failure.failed()) return failure;
  if (Failure failure = begin_history(); failure.failed()) return failure;
  if (Failure failure = start_link(); failure.failed()) return failure;
  Log& log = distant_.any() ? distant_.log() : *link_;
  if (Failure failure = front_.serve(log, marks_.get()); failure.failed()) return failure;
  rejoiner_->attach(*link_, front_.locks());
  link_->serving();
  distant_.attach(front_.locks());
  context_.events.event("role", {{"role", "prim"}, {"epoch", super_.state().epoch}});
  return {};
}

Failure PrimRole::close() {
  if (comparison_) comparison_->stop();
  Failure failure = front_.stop();
  linked_ = nullptr;
  // Without a connection there is nothing to wait for.
  const bool drains = link_ && link_->status().connected;
  const bool whole = link_ && link_->stop(drains ? drain_ms : 0);
  distant_.stop(distant_drain_ms);
  if (marks_) marks_->stop();
  if (link_ && !whole && super_.state().required_peer != 0)
    context_.events.warning("stopped while the peer did not have everything");
  if (ring_ && link_ && super_.state().role == uint32_t(RoleKind::prim)) {
    if (const Failure end = save_end(); end.failed()) failure = end;
  }
  front_.volumes().forget();
  return failure;
}

/** The superblock of an orderly end, and what the peer lacks then. */
Failure PrimRole::save_end() {
  SuperState last = super_.state();
  Lsn since = 0;
  const bool follows = link_->settle(since);
  last.last = ring_->last();
  last.base = {follows ? 0 : since, 0, 0};
  last.base_state = follows ? 0 : 1;
  last.clean = 1;
  int error = front_.tree().sync_all();
  if (error == 0) error = front_.ids().sync();
  // Before the superblock counts on it. Without it the marks count, as after a loss of power.
  if (error == 0 && !follows) error = rejoiner_->save();
  // Before the marks go, which cover what a distant copy lacks.
  if (error == 0) distant_.save_end(last.last);
  if (error == 0) error = super_.save(last);
  // There is nothing that this server may have and the peer has not.
  if (error == 0 && follows) (void)marks_->clear();
  return error == 0 ? Failure{} : Failure::of(error, "the last superblock");
}

Failure PrimRole::alone(uint64_t epoch) {
  const int error = link_->alone(epoch);
  if (error == 0) distant_.begin_epoch(epoch);
  if (error == EINVAL) return Failure::of("EPOCH", "the epoch is older than the present one");
  return error == 0 ? Failure{} : Failure::of(error, "the superblock");
}

Failure PrimRole::joined(uint64_t epoch) {
  const int error = link_->joined(epoch);
  if (error == 0) distant_.begin_epoch(epoch);
  if (error == EINVAL) return Failure::of("EPOCH", "the epoch is older than the present one");
  return error == 0 ? Failure{} : Failure::of(error, "the superblock");
}

Failure PrimRole::verify() {
  if (!link_->status().connected) return Failure::of("PEER", "the secondary is not connected");
  return comparison_->start(front_.locks());
}

void PrimRole::status(Line& line) const {
  line.add("role", "prim");
  front_.status(line);
  const Link* link = linked_.load();
  if (link == nullptr) return;
  comparison_->status(line);
  const LinkStatus now = link->status();
  line.add("peer", now.connected ? "connected" : "lost");
  line.add("alone", uint64_t(now.alone)).add("epoch", now.epoch);
  line.add("insync", uint64_t(now.in_sync)).add("resync", now.run);
  line.add("peer_copy", now.peer_copy).add("permit", now.permit);
  line.add("own_failed", uint64_t(now.own_failed));
  line.add("resync_kind", now.run == 0 ? "" : now.kind).add("history", now.history);
  rejoiner_->status(line);
  distant_.status(line);
  line.add("peer_node", uint64_t(now.peer_node));
  line.add("last", now.last).add("sent", now.sent).add("received", now.received);
  line.add("durable", now.durable).add("applied", now.applied);
  line.add("ring_used", now.ring_used).add("ring_size", now.ring_size);
  line.add("ring_full", now.ring_full).add("waiters", now.waiters);
  line.add("reservers", now.reservers).add("overflows", now.overflows);
  line.add("bytes_sent", now.bytes_sent).add("records_sent", now.records_sent);
  line.add("sends", now.sends).add("barriers", now.barriers).add("acks", now.acks);
  line.add("connects", now.connects).add("failed_connects", now.failed_connects);
  line.add("refusals", now.refusals).add("protocol_errors", now.protocol_errors);
  const MarksStatus marks = marks_->status();
  line.add("marks", marks.marks).add("mark_writes", marks.writes);
  line.add("mark_generations", marks.generations);
  line.add("marks_everything", uint64_t(marks.everything));
  line.add("syncs", now.syncs).add("sync_p50_us", uint64_t(now.sync_p50_ns / 1000));
  line.add("sync_p99_us", uint64_t(now.sync_p99_ns / 1000));
}

}  // namespace

std::unique_ptr<Role> make_prim_role(RoleContext context, const OpenLine& line) {
  return std::make_unique<PrimRole>(context, line);
}

}  // namespace holdfast::replica
