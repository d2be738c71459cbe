#include "replica/distant.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <thread>

#include "common/clock.h"
#include "replica/lineage.h"

namespace holdfast::replica {
namespace {

constexpr int64_t drain_poll_ms = 5;

bool same(const Tail& a, const Tail& b) {
  return a.lsn == b.lsn && a.epoch == b.epoch && a.chain == b.chain;
}

}  // namespace

/** A ring of this process: what it had is dirty by the marks when the process dies. */
class Distant::Memory {
 public:
  explicit Memory(uint64_t ring_bytes) : size_(sizeof(Shared) + ring_bytes) {
    at_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at_ != MAP_FAILED) shared()->ring_size = ring_bytes;
  }
  ~Memory() {
    if (at_ != MAP_FAILED) munmap(at_, size_);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  bool valid() const { return at_ != MAP_FAILED; }
  Shared* shared() const { return static_cast<Shared*>(at_); }
  uint8_t* arena() const { return static_cast<uint8_t*>(at_) + sizeof(Shared); }

 private:
  size_t size_;
  void* at_;
};

/** Says of each event which distant copy it is about. */
class Distant::Tagged final : public Events {
 public:
  Tagged(Events& to, uint32_t index) : to_(to), index_(index) {}
  using Events::event;
  void event(std::string_view name, std::span<const Field> fields) override {
    std::vector<Field> all(fields.begin(), fields.end());
    all.emplace_back("distant", index_);
    to_.event(name, std::span<const Field>(all));
  }

 private:
  Events& to_;
  const uint32_t index_;
};

Distant::Distant(uint32_t index, const OpenLine& line, Front& front, Events& events)
    : index_(index),
      line_(line),
      folder_(line.state + "/distant-" + std::to_string(index)),
      events_(std::make_unique<Tagged>(events, index)),
      rejoiner_(front.tree(), front.ids(), *events_, uint32_t(line.dirs.size()), line.state,
                line.resyncrate) {
  rejoiner_.set_folder(folder_);
}

Distant::~Distant() {
  // Its threads call the others' objects.
  if (link_) link_->stop(0);
}

/** A damaged superblock is none: the copy is compared. */
Failure Distant::open_super() {
  if (mkdir(folder_.c_str(), 0700) != 0 && errno != EEXIST) return Failure::of(errno, folder_);
  const std::string path = folder_ + "/super";
  auto opened = super_.open(path);
  if (!opened.ok() && opened.error == EBADMSG) {
    events_->warning("the superblock of a distant copy is damaged: the copy is compared");
    if (unlink(path.c_str()) != 0) return Failure::of(errno, path);
    opened = super_.open(path);
  }
  return opened.ok() ? Failure{} : Failure::of(opened.error, path);
}

/** The superblock is that of the main stream that `main` speaks of. */
bool Distant::is_own(const SuperState& main) const {
  const SuperState& state = super_.state();
  return state.role == uint32_t(RoleKind::prim) && state.node == line_.node &&
         memcmp(state.set, line_.set, sizeof state.set) == 0 && state.history_size > 0 &&
         state.epoch == main.epoch;
}

/** What the copy has after `base` may be in no ring any more: the marks cover it. */
void Distant::go_on_after_crash() {
  const SuperState& state = super_.state();
  tail_ = {state.last.lsn + unclean_jump, state.last.epoch, random_chain()};
  since_ = state.base.lsn;
  rejoiner_.count_saved(state.base_state != 0 && state.checkpoint.cursor != 0);
  const auto marked = Marks::read(line_.state);
  rejoiner_.own_marks();
  // A primary has marks from before it is one.
  if (marked.ok() && marked.value.generations == 0) rejoiner_.compare_all();
}

Failure Distant::begin(MainBegins how, const SuperState& main, uint64_t ring_bytes) {
  memory_ = std::make_unique<Memory>(ring_bytes);
  if (!memory_->valid()) return Failure::of(ENOMEM, "the ring of a distant copy");
  if (Failure failure = open_super(); failure.failed()) return failure;
  const SuperState& state = super_.state();
  const bool stopped = how == MainBegins::stopped && is_own(main) && state.clean != 0 &&
                       same(state.checkpoint.tail, main.last);
  const bool crashed = how == MainBegins::crashed && is_own(main) && state.clean == 0;
  anew_ = !stopped && !crashed;
  if (stopped) {
    tail_ = state.last;
    left_ = state.base_state != 0;
    since_ = state.base.lsn;
    rejoiner_.count_saved(left_);
    if (const int error = left_ ? rejoiner_.load() : 0; error != 0) {
      events_->warning("what a distant copy lacked at the last stop cannot be read", error);
      rejoiner_.compare_all();
      rejoiner_.count_saved(false);
      since_ = tail_.lsn;
    }
  } else if (crashed) {
    go_on_after_crash();
  } else {
    // No copy has anything of this stream, so nothing before it is of interest.
    tail_ = {random_beginning(), 0, random_chain()};
    since_ = tail_.lsn;
  }
  ring_ = std::make_unique<Ring>(memory_->shared(), memory_->arena());
  ring_->reset(tail_);
  link_ = std::make_unique<Link>(*ring_, super_, *events_, planted_faults());
  return {};
}

Failure Distant::save_beginning(const SuperState& main) {
  SuperState next = anew_ ? SuperState() : super_.state();
  const uint64_t before = next.epoch;
  memcpy(next.set, line_.set, sizeof next.set);
  next.node = line_.node;
  next.state = DiskState::in_sync;
  next.epoch = main.epoch;
  next.required_peer = 0;
  next.role = uint32_t(RoleKind::prim);
  next.clean = 0;
  next.last = tail_;
  next.base = {since_, 0, 0};
  next.base_state = left_ ? 1 : 0;
  next.checkpoint = {rejoiner_.saved_counts() ? uint64_t{1} : 0, {}};
  if (left_) next.resync = 0;
  if (anew_ || next.epoch > before) add_epoch(next, {next.epoch, tail_.lsn, line_.node, 0});
  const int error = super_.save(next);
  return error == 0 ? Failure{} : Failure::of(error, folder_ + "/super");
}

Failure Distant::start(const LinkOptions& like, Fanout& fanout, Marks& marks) {
  const uint32_t copy = index_ + 1;
  rejoiner_.set_marks(&marks, copy);
  LinkOptions options = like;
  options.peer = line_.distant[index_];
  options.distant = true;
  options.strict = options.second = false;
  options.epoch = super_.state().epoch;
  options.differs = nullptr;
  options.rejoining = &rejoiner_;
  options.peer_has = [&marks, copy](Lsn main) { marks.peer_has(main, copy); };
  options.marks_wait = [&marks] { return marks.has_old(); };
  options.compare_streams = [&fanout] { fanout.compare_streams(); };
  const auto started = link_->start(options);
  if (!started.ok())
    return Failure::of(started.error, std::string("the link of a distant copy: ") + started.call);
  started_ = true;
  return {};
}

int Distant::save_end(const Tail& main) {
  Lsn since = 0;
  const bool follows = link_->settle(since);
  SuperState last = super_.state();
  last.last = ring_->last();
  last.base = {follows ? last.last.lsn : since, 0, 0};
  last.base_state = follows ? 0 : 1;
  last.checkpoint = {follows ? uint64_t{0} : 1, main};
  last.clean = 1;
  // Before the superblock counts on it.
  const int error = follows ? 0 : rejoiner_.save();
  return error != 0 ? error : super_.save(last);
}

void Distant::status(Line& line) const {
  const LinkStatus now = link_->status();
  const DirtyTotals dirty = rejoiner_.totals();
  const ResyncProgress& progress = rejoiner_.shown();
  const std::string name = "distant" + std::to_string(index_) + "_";
  const bool refused = !now.connected && *now.refused != 0;
  line.add(name + "peer", now.connected ? "connected" : refused ? "refused" : "lost");
  line.add(name + "reason", now.connected ? "" : now.refused);
  line.add(name + "node", uint64_t(now.peer_node));
  line.add(name + "insync", uint64_t(now.in_sync));
  line.add(name + "lag_bytes", now.ring_used + dirty.bytes);
  line.add(name + "lag_ms", uint64_t(now.lag_ns / ns_per_ms));
  line.add(name + "resync", now.run).add(name + "resync_kind", now.run == 0 ? "" : now.kind);
  line.add(name + "resync_left", dirty.bytes);
  line.add(name + "resync_rate", progress.rate.load());
  line.add(name + "resync_sent", progress.sent_bytes.load());
  line.add(name + "sent", now.bytes_sent).add(name + "diverted", now.diverted);
  line.add(name + "dirty_bytes", dirty.bytes);
  line.add(name + "dirty_everything", uint64_t(dirty.everything));
  line.add(name + "last", now.last).add(name + "durable", now.durable);
  line.add(name + "history", now.history);
}

DistantCopies::DistantCopies(const OpenLine& line, Front& front, Events& events) : events_(events) {
  for (uint32_t i = 0; i < line.distant.size(); i++)
    all_.push_back(std::make_unique<Distant>(i, line, front, events));
}

Failure DistantCopies::begin(MainBegins how, const SuperState& main, uint64_t ring_bytes) {
  for (const auto& each : all_) {
    if (Failure failure = each->begin(how, main, ring_bytes); failure.failed()) return failure;
  }
  return {};
}

Failure DistantCopies::save_beginning(const SuperState& main) {
  for (const auto& each : all_) {
    if (Failure failure = each->save_beginning(main); failure.failed()) return failure;
  }
  return {};
}

Failure DistantCopies::start(Link& main, const LinkOptions& like, Marks& marks) {
  std::vector<Link*> links;
  for (const auto& each : all_) links.push_back(&each->link());
  fanout_ = std::make_unique<Fanout>(main, std::move(links));
  for (const auto& each : all_) {
    if (Failure failure = each->start(like, *fanout_, marks); failure.failed()) return failure;
  }
  return {};
}

void DistantCopies::attach(Locks& locks) {
  for (const auto& each : all_) {
    each->rejoiner().attach(each->link(), locks);
    each->link().serving();
  }
}

void DistantCopies::begin_epoch(uint64_t epoch) {
  for (const auto& each : all_) {
    const int error = each->link().begin_epoch(epoch);
    if (error != 0) events_.warning("the superblock of a distant copy cannot be written", error);
  }
}

void DistantCopies::stop(int64_t drain_ms) {
  const int64_t until = boot_ns() + drain_ms * ns_per_ms;
  for (const auto& each : all_) {
    if (!each->started()) continue;
    while (!each->link().need_not_wait() && boot_ns() < until)
      std::this_thread::sleep_for(std::chrono::milliseconds(drain_poll_ms));
  }
  for (const auto& each : all_)
    if (each->started()) each->link().begin_stop();
  for (const auto& each : all_)
    if (each->started()) each->link().stop(0);
}

void DistantCopies::save_end(const Tail& main) {
  for (const auto& each : all_) {
    const int error = each->started() ? each->save_end(main) : 0;
    if (error != 0) events_.warning("what a distant copy lacks cannot be saved", error);
  }
}

void DistantCopies::status(Line& line) const {
  line.add("distant", uint64_t(all_.size()));
  for (const auto& each : all_) each->status(line);
}

}  // namespace holdfast::replica
