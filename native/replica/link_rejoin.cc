#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/clock.h"
#include "replica/link.h"

// The way of a resync, on the link's thread.

namespace holdfast::replica {
namespace {

/** The end comes when so little is on the way that nobody waits long for it … */
constexpr uint64_t end_share = 8;
/** … or after this: a peer that never gets closer is no reason to go on alone. */
constexpr int64_t end_after = 5 * ns_per_s;
constexpr int64_t save_again = ns_per_s;
constexpr int64_t applied_poll = 20 * ns_per_ms;

}  // namespace

/** The peer does not follow any more: durable when it returns 0. */
int Link::peer_left() {
  const std::lock_guard lock(super_mutex_);
  if (left_.load()) return 0;
  const Lsn since = dirty_since();
  SuperState state = super_.state();
  state.base = {since, 0, 0};
  state.base_state = 1;
  state.resync = 0;
  const int error = super_.save(state);
  if (error != 0) return error;
  options_.rejoining->follows(false);
  if (options_.distant && behind_ns_.load() == 0) {
    const int64_t oldest = lag_.since_ns(durable_.load());
    behind_ns_.store(oldest != 0 ? oldest : boot_ns());
  }
  const std::lock_guard wait_lock(wait_mutex_);
  dirty_since_.store(since);
  held_from_.store(durable_.load());
  left_.store(true);
  held_.store(!alone_.load());
  return 0;
}

/** What only the peer may have changed. */
bool Link::take_touched(std::span<const uint8_t> body) {
  TouchedBody head{};
  if (body.size() < sizeof head) return false;
  std::memcpy(&head, body.data(), sizeof head);
  // Of a run that has begun: what it reported was lost, so everything is compared.
  const uint64_t run = announced_ != 0 ? announced_ : run_.load();
  if (run == 0 || head.run != run || head.everything > 1 ||
      body.size() != sizeof head + head.count * sizeof(Mark)) {
    return false;
  }
  Marked marked;
  marked.first_new = head.first_new;
  marked.everything = head.everything != 0;
  marked.marks.resize(head.count);
  if (head.count > 0) {
    std::memcpy(marked.marks.data(), body.data() + sizeof head, head.count * sizeof(Mark));
  }
  options_.rejoining->touched(marked);
  return true;
}

/** The peer takes records after the tail. False: the connection is to end. */
bool Link::take_ready(const ReadyBody& ready) {
  if (announced_ == 0 || ready.run != announced_ || ready.lsn != announced_tail_.lsn) {
    channel_->shut(EPROTO);
    return false;
  }
  ring_.keep(true);
  uint64_t cursor = 0;
  // Alone, the ring may have gone on meanwhile: from the beginning, then.
  if (!ring_.find(announced_tail_, cursor)) {
    channel_->shut(ECONNABORTED);
    return false;
  }
  run_.store(announced_);
  announced_ = 0;
  synced_ = 0;
  applied_.store(ready.lsn);
  if (kind_.load() == Rejoin::catch_up) {
    // The ring has all that it lacks: nothing is stated, and nothing before is of interest. For a
    // distant copy nothing was dirty; what is by now was diverted since.
    if (!options_.distant) options_.rejoining->clear();
    dirty_since_.store(ready.lsn);
    stated_ = false;
  }
  stating_ = true;
  begin_stream(cursor, ready.lsn);
  begin_stating();
  return true;
}

/** True while the ring keeps what the peer has not applied: it may lack what that is about. */
bool Link::keeps_unapplied() const {
  return stating_ && kind_.load() != Rejoin::catch_up;
}

/** A peer that has nothing to write acknowledges nothing: it is asked what it has applied. */
void Link::ask_applied(int64_t now_ns) {
  if (!stating_ || applied_.load() >= sent_.load()) return;
  if (now_ns - asked_applied_ns_ < applied_poll) return;
  asked_applied_ns_ = now_ns;
  if (!channel_->sending()) channel_->post(Frame::barrier, BarrierBody{durable_.load()});
}

/** Begins to state what is dirty. */
void Link::begin_stating() {
  all_stated_.store(false);
  state_failed_.store(false);
  end_wanted_ns_ = 0;
  stating_ = true;
  if (kind_.load() != Rejoin::catch_up) stated_ = true;
  options_.rejoining->start(
      run_.load(),
      [this] {
        all_stated_.store(true);
        wake();
      },
      [this](int error, const char* call) {
        events_.event("warning",
                      {{"text", "what is dirty cannot be read"}, {"errno", error}, {"call", call}});
        state_failed_.store(true);
        wake();
      });
}

/** The connection is over; what was not stated stays dirty. */
void Link::interrupt() {
  const bool under_way = stating_ || announced_ != 0;
  set_forgives(false);
  if (stating_) {
    options_.rejoining->stop();
    // A report about what was not applied yet may be lost with the connection, or with the peer.
    if (keeps_unapplied()) {
      touch_unapplied();
    } else {
      // What it has durably has left the ring.
      dirty_since_.store(std::max(dirty_since_.load(), durable_.load()));
    }
  }
  if (under_way) {
    const ResyncProgress& progress = options_.rejoining->progress();
    events_.event("resync", {{"state", "interrupted"},
                             {"run", announced_ != 0 ? announced_ : run_.load()},
                             {"kind", replica::name_of(kind_.load())},
                             {"sent", progress.sent_bytes.load()},
                             {"read", progress.read_bytes.load()}});
  }
  stating_ = false;
  announced_ = 0;
  end_wanted_ns_ = 0;
  all_stated_.store(false);
}

/** Everything was stated: ends the resync when the peer is close enough. */
void Link::try_end(int64_t now_ns) {
  if (!stating_ || !all_stated_.load()) return;
  if (end_wanted_ns_ == 0) end_wanted_ns_ = now_ns;
  if (now_ns < end_wanted_ns_) return;
  const bool close = ring_.used() <= ring_.size() / end_share;
  if (!close && now_ns - end_wanted_ns_ < end_after) return;
  options_.rejoining->stop();
  const bool early = options_.distant && faults_ != nullptr && faults_->distant_ends_early;
  if (!early && !options_.rejoining->nothing_dirty()) return begin_stating();
  const int error = options_.distant ? end_distant_run() : end_run();
  if (error == 0) return;
  if (error != EAGAIN) {
    if (!save_failed_said_) {
      events_.warning("the superblock cannot be written: the resync does not end", error);
    }
    save_failed_said_ = true;
    end_wanted_ns_ = now_ns + save_again;
  }
}

/**
 * Nothing without the peer, durably; then the record that ends the resync. What is acknowledged
 * from here on waits until the peer has that record.
 */
int Link::end_run() {
  const SyncedBody body{run_.load(), epoch_shown_.load()};
  const size_t bytes = record_size(sizeof body);
  if (!ring_.reserve(bytes)) return EAGAIN;
  {
    const std::lock_guard super_lock(super_mutex_);
    const std::lock_guard append_lock(append_mutex_);
    SuperState state = super_.state();
    state.required_peer = 1;
    state.last = ring_.last();
    state.base = {};
    state.base_state = 0;
    state.resync = body.run;
    if (alone_.load()) add_epoch(state, {epoch_, state.last.lsn, options_.node, 0});
    const int error = super_.save(state);
    if (error != 0) {
      ring_.release(bytes);
      return error;
    }
    if (alone_.load()) held_from_.store(0);
    held_.store(true);
    alone_.store(false);
    append_synced(body);
  }
  alone_noticed_ = false;
  send_synced();
  return 0;
}

/** The record that ends the run, out of a reservation; with the lock of appends. */
void Link::append_synced(const SyncedBody& body) {
  left_.store(false);
  const iovec part{const_cast<SyncedBody*>(&body), sizeof body};
  // About no file: every record names one, so the first root.
  synced_ = ring_.append(Kind::synced, 0, 1, {&part, 1}, epoch_);
  last_.store(synced_, std::memory_order_release);
}

/** At once: whoever syncs waits for it, and perhaps nothing else is about to be sent. */
void Link::send_synced() {
  stating_ = false;
  save_failed_said_ = false;
  raise_to(barrier_wanted_, synced_);
  asked_.store(true);
  kick();
}

bool Link::take_whole(const ReadyBody& whole) {
  if (whole.run != run_.load() || (synced_ != 0 && whole.lsn != synced_)) return false;
  // Alone again since: the peer hears of that in its next welcome.
  if (!left_.load()) is_whole();
  return true;
}

/** The peer counts as in sync, durably. */
void Link::is_whole() {
  peer_whole_.store(true);
  const ResyncProgress& progress = options_.rejoining->progress();
  const uint64_t run = run_.exchange(0);
  if (options_.distant) {
    // `note` says that it follows, when the superblock does.
    const std::lock_guard append_lock(append_mutex_);
    if (!overrun_.load()) options_.rejoining->clear();
    behind_ns_.store(0);
  } else {
    options_.rejoining->clear();
    options_.rejoining->follows(true);
  }
  stated_ = false;
  synced_ = 0;
  events_.event("resync", {{"state", "done"},
                           {"run", run},
                           {"kind", replica::name_of(kind_.load())},
                           {"sent", progress.sent_bytes.load()},
                           {"read", progress.read_bytes.load()}});
  events_.event("insync", {{"run", run}, {"lsn", durable_.load()}, {"epoch", epoch_shown_.load()}});
}

}  // namespace holdfast::replica
