#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/clock.h"
#include "replica/link.h"

// What is different for a distant copy: nothing ever waits for it.
//
// A record that its ring has no room for is made dirty instead (diverted). A copy that follows
// would take the next record as if nothing were lacking, so from the first one on all are diverted
// (`overrun_`), until the thread has ended the connection, emptied the ring into the dirty set and
// left a gap in the stream's numbers; what comes back is a resync. A copy in a run that states what
// is dirty forgives single ones.

namespace holdfast::replica {
namespace {

/** Records that the ring's lock is held for when it is emptied. */
constexpr size_t drops_at_once = 256;
/** Where no marks wait for it, the superblock is saved so much more seldom. */
constexpr int64_t note_late = 10;

}  // namespace

/** Room for a change, with append_mutex_ held. */
bool Link::has_room(size_t bytes) {
  if (overrun_.load()) return false;
  // Statements have what is left, so that an overloaded line still states what is dirty.
  if (forgives_ && ring_.used() + bytes > ring_.size() / 2) return false;
  // Away and not following, what is oldest goes and is dirty.
  if (ring_.reserve(bytes, left_.load() && !forgives_)) return true;
  overrun_.store(!forgives_);
  return false;
}

/** What there is no room for is stated later, as it is then. append_mutex_ is held. */
void Link::divert(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload) {
  diverted_.fetch_add(1, std::memory_order_relaxed);
  if (faults_ != nullptr && faults_->divert_forgets) return;
  RecordHead head{};
  head.kind = static_cast<uint16_t>(kind);
  head.flags = flags;
  head.file = file;
  head.lsn = 1;  // it gets none, and every record has one
  size_t size = 0;
  for (const iovec& part : payload) size += part.iov_len;
  head.payload_size = static_cast<uint32_t>(size);
  head.size = static_cast<uint32_t>(record_size(size));
  scratch_.resize(head.size);
  std::memcpy(scratch_.data(), &head, sizeof head);
  size_t at = sizeof head;
  for (const iovec& part : payload) {
    if (part.iov_len > 0) std::memcpy(scratch_.data() + at, part.iov_base, part.iov_len);
    at += part.iov_len;
  }
  Record record;
  if (parse_record(scratch_, record, true) == ParseStatus::ok) {
    options_.rejoining->touch(record);
  } else {
    options_.rejoining->compare_all();
  }
}

void Link::offer(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload, Lsn main) {
  size_t size = 0;
  for (const iovec& part : payload) size += part.iov_len;
  bool first = false;
  {
    const std::lock_guard lock(append_mutex_);
    const bool before = overrun_.load();
    if (has_room(record_size(size))) {
      const Lsn lsn = ring_.append(kind, flags, file, payload, epoch_);
      last_.store(lsn, std::memory_order_release);
      lag_.add(lsn, main, boot_ns());
    } else {
      divert(kind, flags, file, payload);
      first = !before && overrun_.load();
    }
  }
  if (first) wake();
}

void Link::reached(Lsn main) {
  const std::lock_guard lock(append_mutex_);
  // What was diverted is in no record of the ring.
  if (!overrun_.load()) lag_.reached(last(), main, boot_ns());
}

/**
 * Without a connection: a copy that a record was diverted for does not follow any more. When that
 * cannot be saved the records go on being diverted.
 */
void Link::settle_overrun() {
  if (!overrun_.load()) return;
  if (const int error = peer_left(); error != 0) {
    if (!save_failed_said_) {
      events_.warning("the superblock of a distant copy cannot be written", error);
    }
    save_failed_said_ = true;
    return;
  }
  save_failed_said_ = false;
  empty_ring(false);
}

/**
 * All of the ring becomes dirty, in small steps: who appends waits for no more than one of them.
 * Nobody reads the ring, and the superblock says that the copy does not follow. Returns the end,
 * which no copy has yet; `forgives`: the copy will go on there, in a run.
 */
Tail Link::empty_ring(bool forgives) {
  {
    // What comes meanwhile is diverted, so there is an end to it.
    const std::lock_guard lock(append_mutex_);
    overrun_.store(true);
  }
  while (ring_.drop(drops_at_once)) {
  }
  const std::lock_guard lock(append_mutex_);
  const Tail end = ring_.leave_gap(
      random_chain(), [this](const Record& record) { options_.rejoining->touch(record); });
  last_.store(end.lsn, std::memory_order_release);
  forgives_ = forgives;
  overrun_.store(false);
  return end;
}

void Link::set_forgives(bool forgives) {
  if (!options_.distant) return;
  const std::lock_guard lock(append_mutex_);
  forgives_ = forgives;
}

/** The connection is over in a resync: what the copy has not applied is dirty again. */
void Link::touch_unapplied() {
  const Lsn applied = applied_.load();
  const auto touch = [this, applied](const Record& record) {
    if (record.head.lsn > applied) options_.rejoining->touch(record);
  };
  if (!options_.distant) return ring_.for_each(applied, touch);
  for (uint64_t cursor = 0; ring_.for_some(cursor, drops_at_once, touch);) {
  }
}

/**
 * As end_run. Nothing was acknowledged by the superblock's leave, so it stays as it is until the
 * copy has the record: it may come back as it was before the run, and the marks are kept until
 * then (`note`).
 */
int Link::end_distant_run() {
  const SyncedBody body{run_.load(), epoch_shown_.load()};
  const size_t bytes = record_size(sizeof body);
  if (!ring_.reserve(bytes)) return EAGAIN;
  {
    const std::lock_guard append_lock(append_mutex_);
    const bool early = faults_ != nullptr && faults_->distant_ends_early;
    // Diverted since all was stated. From here on nothing is forgiven.
    if (overrun_.load() || (!early && !options_.rejoining->nothing_dirty())) {
      ring_.release(bytes);
      return EAGAIN;
    }
    forgives_ = false;
    held_.store(true);
    append_synced(body);
  }
  send_synced();
  return 0;
}

/**
 * Saves what the copy has durably: that is where a primary that dies begins to compare, so marks
 * may go only by what was saved. The first time after a resync it says that the copy follows.
 */
void Link::note(int64_t now_ns) {
  if (left_.load() || held_.load() || synced_ != 0 || overrun_.load()) return;
  const Lsn has = durable_.load();
  bool returned = false;
  {
    const std::lock_guard lock(super_mutex_);
    returned = super_.state().base_state != 0;
  }
  const bool soon = returned || (options_.marks_wait && options_.marks_wait());
  if (!soon && has == noted_) return;
  const int64_t pause = options_.note_ms * ns_per_ms * (soon ? 1 : note_late);
  if (now_ns - noted_ns_ < pause) return;
  noted_ns_ = now_ns;
  if (options_.compare_streams) options_.compare_streams();
  if (returned || has != noted_) {
    const std::lock_guard lock(super_mutex_);
    SuperState state = super_.state();
    state.last = ring_.last();
    state.base = {has, 0, 0};
    state.base_state = 0;
    state.checkpoint = {};
    if (const int error = super_.save(state); error != 0) {
      if (!save_failed_said_) {
        events_.warning("the superblock of a distant copy cannot be written", error);
      }
      save_failed_said_ = true;
      return;
    }
  }
  save_failed_said_ = false;
  noted_ = has;
  if (returned) options_.rejoining->follows(true);
  if (options_.peer_has) options_.peer_has(lag_.main_of(has));
}

int Link::begin_epoch(uint64_t epoch) {
  const std::lock_guard super_lock(super_mutex_);
  // The records' epoch and where it begins must agree; this is when the primary goes on alone, and
  // those who write have waited for that.
  const std::lock_guard append_lock(append_mutex_);
  if (epoch <= epoch_) return 0;
  SuperState state = super_.state();
  state.epoch = epoch;
  state.last = ring_.last();
  add_epoch(state, {epoch, state.last.lsn, options_.node, 0});
  if (const int error = super_.save(state); error != 0) return error;
  // It hears of an epoch in a `hello`, and takes no record of it before. A greeting that is under
  // way comes too late (`adopt`).
  take_sending();
  if (channel_ != nullptr) channel_->shut(ECONNABORTED);
  epoch_ = epoch;
  epoch_shown_.store(epoch);
  sending_.store(false);
  eventfd_write(abort_.get(), 1);
  return 0;
}

int64_t Link::lag_ns() const {
  int64_t since = behind_ns_.load();
  if (since == 0) since = lag_.since_ns(durable_.load());
  return since == 0 ? 0 : std::max<int64_t>(boot_ns() - since, 0);
}

bool Link::need_not_wait() const {
  return !connected_.load() || left_.load() || held_.load() || overrun_.load() ||
         durable_.load() >= last();
}

void Link::begin_stop() {
  stopping_.store(true);
  eventfd_write(abort_.get(), 1);
}

}  // namespace holdfast::replica
