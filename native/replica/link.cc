#include "replica/link.h"

#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>

#include "common/clock.h"

// What the server's threads call, and the superblock.

namespace holdfast::replica {

namespace {

/** What may wait for room: as many as may wait for the peer. */
constexpr size_t max_reservers = max_waits;

}  // namespace

Link::Link(Ring& ring, Super& super, Events& events, const Faults* faults)
    : ring_(ring), super_(super), events_(events), faults_(faults) {}

Link::~Link() {
  stop(0);
}

Result<bool> Link::start(const LinkOptions& options) {
  options_ = options;
  if (!ring_.intact() || options.volumes > max_root) return Result<bool>::failure(EINVAL, "ring");
  const Result<bool> identity = identity_.open(options.tls);
  if (!identity.ok()) return identity;
  wake_ = Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  abort_ = Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  timer_ = Fd(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!wake_.valid() || !abort_.valid() || !timer_.valid()) {
    return Result<bool>::failure(errno, "eventfd");
  }
  last_.store(ring_.last().lsn);
  epoch_ = std::max({options.epoch, super_.state().epoch, ring_.last().epoch});
  epoch_shown_.store(epoch_);
  const Lsn freed = ring_.before_first().lsn;
  durable_.store(freed);
  received_.store(freed);
  const SuperState& state = super_.state();
  alone_.store(state.required_peer == 0);
  if (options.rejoining != nullptr) {
    left_.store(state.base_state != 0 || (alone_.load() && !options.distant));
    dirty_since_.store(state.base.lsn);
    held_.store(left_.load() && !alone_.load());
    run_.store(left_.load() ? 0 : state.resync);
    ring_.set_dropped([this](const Record& record) { options_.rejoining->touch(record); });
    options.rejoining->follows(!left_.load());
  }
  lost_since_ns_ = boot_ns();
  if (options.distant) {
    if (left_.load()) behind_ns_.store(lost_since_ns_);
    noted_ = state.base.lsn;
  }
  stopping_.store(false);
  thread_ = std::thread([this] { run(); });
  pthread_setname_np(thread_.native_handle(), "hf-link");
  return Result<bool>::success(true);
}

bool Link::stop(int64_t drain_ms) {
  if (!thread_.joinable()) return durable_.load() >= last();
  struct Drain {
    std::mutex mutex;
    std::condition_variable changed;
    bool over = false;
  };
  if (drain_ms > 0 && !alone_.load() && !held_.load()) {
    // Shared with the waiter, which may outlive this wait.
    auto* drain = new std::shared_ptr<Drain>(std::make_shared<Drain>());
    const std::shared_ptr<Drain> mine = *drain;
    const Waiter waiter{[](void* context, uint64_t, int) {
                          auto* shared = static_cast<std::shared_ptr<Drain>*>(context);
                          const std::lock_guard lock((*shared)->mutex);
                          (*shared)->over = true;
                          (*shared)->changed.notify_all();
                        },
                        drain, 0};
    raise_to(barrier_wanted_, last());
    std::unique_lock lock(mine->mutex);
    if (!wait_for(Level::durable, last(), waiter)) {
      mine->changed.wait_for(lock, std::chrono::milliseconds(drain_ms), [&] { return mine->over; });
    }
    lock.unlock();
    stopping_.store(true);
    eventfd_write(abort_.get(), 1);
    thread_.join();  // whoever still waits was told
    delete drain;
  } else {
    stopping_.store(true);
    eventfd_write(abort_.get(), 1);
    thread_.join();
  }
  return !left_.load() && durable_.load() >= last();
}

bool Link::settle(Lsn& since) {
  since = dirty_since();
  if (!left_.load() && !overrun_.load() && durable_.load() >= last()) return true;
  if (options_.rejoining == nullptr) return false;
  if (stated_) options_.rejoining->own_marks();
  ring_.for_each(left_.load() ? 0 : durable_.load(),
                 [this](const Record& record) { options_.rejoining->touch(record); });
  return false;
}

void Link::serving() {
  serving_.store(true);
}

void Link::cut(int64_t ms) {
  cut_until_ns_.store(boot_ns() + ms * ns_per_ms);
  take_sending();
  if (channel_ != nullptr) channel_->shut(ECONNABORTED);
  sending_.store(false);
  eventfd_write(abort_.get(), 1);
}

/** What changed after this is dirty, or in the ring. */
Lsn Link::dirty_since() const {
  return left_.load() ? dirty_since_.load() : ring_.before_first().lsn;
}

/** Makes the superblock say that this side goes on without the other, then lets it. */
int Link::save_alone(uint64_t epoch) {
  const std::lock_guard super_lock(super_mutex_);
  const std::lock_guard append_lock(append_mutex_);
  if (epoch < epoch_) return EINVAL;
  if (alone_.load() && epoch == epoch_) return 0;
  const bool followed = !left_.load();
  const Lsn since = dirty_since();
  SuperState state = super_.state();
  state.epoch = epoch;
  state.required_peer = 0;
  state.clean = 0;
  state.last = ring_.last();
  state.base = {since, 0, 0};
  state.base_state = 1;
  state.resync = 0;
  add_epoch(state, {epoch, state.last.lsn, options_.node, 1});
  const int error = super_.save(state);
  if (error != 0) return error;
  if (options_.rejoining != nullptr) options_.rejoining->follows(false);
  // Nothing of the new epoch goes to a peer that followed: it hears first that it does not any
  // more. In a resync it knows that.
  take_sending();
  if (followed && channel_ != nullptr) channel_->shut(ECONNABORTED);
  epoch_ = epoch;
  epoch_shown_.store(epoch);
  dirty_since_.store(since);
  left_.store(options_.rejoining != nullptr);
  alone_.store(true);
  held_.store(false);
  sending_.store(false);
  return 0;
}

int Link::alone(uint64_t epoch) {
  const int error = save_alone(epoch);
  if (error == 0) eventfd_write(abort_.get(), 1);
  return error;
}

int Link::joined(uint64_t epoch) {
  {
    const std::lock_guard super_lock(super_mutex_);
    const std::lock_guard append_lock(append_mutex_);
    if (epoch < epoch_) return EINVAL;
    if (epoch == epoch_) return 0;
    SuperState state = super_.state();
    state.epoch = epoch;
    state.last = ring_.last();
    add_epoch(state, {epoch, state.last.lsn, options_.node, alone_.load() ? 1u : 0u});
    const int error = super_.save(state);
    if (error != 0) return error;
    // The peer takes records of no later epoch than it was told when the connection began.
    take_sending();
    if (channel_ != nullptr) channel_->shut(ECONNABORTED);
    epoch_ = epoch;
    epoch_shown_.store(epoch);
    at_once_.store(true);
    sending_.store(false);
  }
  eventfd_write(abort_.get(), 1);
  return 0;
}

bool Link::reserve(size_t bytes, const Waiter& ready) {
  // Alone, what is old goes, unless the peer is being brought back (Ring::keep).
  if (ring_.reserve(bytes, alone_.load())) return true;
  bool full = false;
  {
    const std::lock_guard lock(wait_mutex_);
    // Seen by whoever makes room from now on; what came before is found by the second look.
    reservers_count_.store(reservers_.size() + 1);
    if (ring_.reserve(bytes, alone_.load())) {
      reservers_count_.store(reservers_.size());
      return true;
    }
    if (reservers_.size() >= max_reservers) {
      reservers_count_.store(reservers_.size());
      full = true;
    } else {
      reservers_.push_back(ready);
    }
  }
  if (full) {
    overflows_.fetch_add(1, std::memory_order_relaxed);
    ready.done(ready.context, ready.argument, ENOMEM);
    return false;
  }
  // Room comes by acknowledgements: the peer is asked for one.
  raise_to(barrier_wanted_, last());
  asked_.store(true);
  kick();
  return false;
}

void Link::release(size_t bytes) {
  ring_.release(bytes);
  if (reservers_count_.load() > 0) {
    room_.store(true);
    wake();
  }
}

Lsn Link::append_noting(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload,
                        uint64_t* early) {
  Lsn lsn;
  {
    const std::lock_guard lock(append_mutex_);
    lsn = ring_.append(kind, flags, file, payload, epoch_, early);
    last_.store(lsn, std::memory_order_release);
  }
  // Alone, what was a reservation can be dropped now.
  if (alone_.load() && reservers_count_.load() > 0) {
    room_.store(true);
    wake();
  }
  return lsn;
}

bool Link::reached(Level level, Lsn lsn) const {
  if (alone_.load()) return true;
  if (held_.load()) return lsn <= held_from_.load();
  const std::atomic<Lsn>& have = level == Level::durable ? durable_ : received_;
  return have.load() >= lsn;
}

bool Link::wait_for(Level level, Lsn lsn, const Waiter& waiter) {
  if (reached(level, lsn)) return true;
  if (faults_ != nullptr && faults_->ack_without_peer) return true;
  bool full = false;
  {
    const std::lock_guard lock(wait_mutex_);
    if (reached(level, lsn)) return true;
    Waits& waits = level == Level::durable ? durable_waits_ : received_waits_;
    full = stopping_.load() || !waits.add(lsn, waiter, boot_ns());
  }
  if (full) {
    overflows_.fetch_add(1, std::memory_order_relaxed);
    waiter.done(waiter.context, waiter.argument, stopping_.load() ? EIO : ENOMEM);
    return false;
  }
  asked_.store(true);
  kick();
  return false;
}

bool Link::sync(Lsn lsn, const Waiter& waiter) {
  const Level level = options_.second ? Level::received : Level::durable;
  if (reached(level, lsn)) return true;
  raise_to(barrier_wanted_, lsn);
  return wait_for(level, lsn, waiter);
}

bool Link::strict() const {
  return options_.strict && !alone_.load();
}

bool Link::receipt(Lsn lsn, const Waiter& waiter) {
  return wait_for(Level::received, lsn, waiter);
}

bool Link::peer_space(uint32_t volume, uint64_t& blocks, uint64_t& free_blocks,
                      uint32_t& block_size, uint64_t& files, uint64_t& free_files) {
  const std::lock_guard lock(space_mutex_);
  if (volume >= max_root || !space_known_[volume] || alone_.load()) return false;
  const SpaceBody& space = space_[volume];
  blocks = space.blocks;
  free_blocks = space.free_blocks;
  block_size = space.block_size;
  files = space.files;
  free_files = space.free_files;
  return true;
}

void Link::local_failed(int error, const char* call) {
  if (failed_said_.exchange(true)) return;
  events_.event("local_failed", {{"errno", error}, {"call", call}});
  const std::lock_guard lock(super_mutex_);
  SuperState state = super_.state();
  state.state = DiskState::failed;
  state.last = ring_.last();
  const int failed = super_.save(state);
  if (failed != 0) events_.warning("the superblock cannot be written", failed);
}

/** As `status` shows it: the last epochs, an answer is one line. */
std::string Link::history() const {
  constexpr uint32_t most = 16;
  std::string out;
  const std::lock_guard lock(super_mutex_);
  const SuperState& state = super_.state();
  for (uint32_t i = state.history_size - std::min(state.history_size, most); i < state.history_size;
       i++) {
    const EpochStart& start = state.history[i];
    if (!out.empty()) out += ',';
    out += std::to_string(start.epoch) + ":" + std::to_string(start.first) + ":" +
           std::to_string(start.primary) + ":" + std::to_string(start.alone);
  }
  return out;
}

/** With the lock under which `alone` saves: what is said here was said before it, or is of its
 * epoch. */
void Link::peer_status(LinkStatus& out) const {
  const std::lock_guard lock(super_mutex_);
  const SuperState& state = super_.state();
  for (uint32_t i = 0; i < state.history_size; i++) {
    const EpochStart& start = state.history[i];
    if (start.alone != 0 && start.primary == options_.node) out.permit = start.epoch;
  }
  out.own_failed = state.state == DiskState::failed;
  out.alone = alone_.load();
  if (!connected_.load()) return;
  // Before the rest is looked at: it is 0 only once the peer has said that it is whole.
  const bool ends = run_.load() != 0;
  const bool whole = !held_.load() && peer_whole_.load();
  const bool lacks = left_.load() || out.alone || (!whole && !ends);
  out.peer_copy = lacks ? "resync" : whole ? "in_sync" : "caught_up";
}

LinkStatus Link::status() const {
  LinkStatus out;
  out.connected = connected_.load();
  out.in_sync = out.connected && !left_.load() && !held_.load();
  out.run = left_.load() || held_.load() ? run_.load() : 0;
  out.kind = name_of(kind_.load());
  out.history = history();
  peer_status(out);
  out.epoch = epoch_shown_.load();
  out.peer_node = peer_node_.load();
  out.last = last();
  out.sent = sent_.load();
  out.received = received_.load();
  out.durable = durable_.load();
  out.applied = applied_.load();
  out.ring_used = ring_.used();
  out.ring_size = ring_.size();
  out.ring_full = ring_.turned_away();
  {
    const std::lock_guard lock(wait_mutex_);
    out.waiters = durable_waits_.size() + received_waits_.size();
    out.reservers = reservers_.size();
  }
  out.overflows = overflows_.load();
  out.bytes_sent = bytes_sent_.load();
  out.records_sent = records_sent_.load();
  out.sends = sends_.load();
  out.barriers = barriers_.load();
  out.acks = acks_.load();
  out.connects = connects_.load();
  out.failed_connects = failed_connects_.load();
  out.refusals = refusals_.load();
  out.protocol_errors = protocol_errors_.load();
  const Histogram& times = (options_.second ? received_waits_ : durable_waits_).times();
  out.syncs = times.count();
  out.sync_p50_ns = times.quantile(0.5);
  out.sync_p99_ns = times.quantile(0.99);
  out.refused = refused_now_.load();
  out.diverted = diverted_.load();
  out.lag_ns = options_.distant ? lag_ns() : 0;
  return out;
}

}  // namespace holdfast::replica
