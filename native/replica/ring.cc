#include "replica/ring.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace holdfast::replica {

// What is in shared memory must be right at every instruction, for the worker may die at any:
//  - `head` moves when the record before it is whole, so records in [tail, head) are whole;
//  - the Tail before the first record matters only while the ring is empty, and is written before
//    `tail` moves to `head`; otherwise the records themselves say what they are;
//  - the Tail after the last record is found again by reading them.

Ring::Ring(Shared* shared, uint8_t* arena)
    : shared_(shared), state_(shared->ring), arena_(arena), size_(shared->ring_size) {
  intact_ = size_ >= min_ring && size_ % 4096 == 0 && adopt();
}

RecordHead Ring::head_at(uint64_t cursor) const {
  RecordHead head;
  std::memcpy(&head, arena_ + cursor % size_, sizeof head);
  return head;
}

/** The cursor itself, or the next lap's beginning when no record starts there. */
uint64_t Ring::skip_pad(uint64_t cursor, uint64_t head) const {
  if (cursor >= head) return cursor;
  const uint64_t left = lap_left(cursor);
  const bool pad =
      left < sizeof(RecordHead) || head_at(cursor).kind == static_cast<uint16_t>(Kind::pad);
  return pad ? cursor + left : cursor;
}

/** Reads what is there, as a worker before left it; false: it is not a history. */
bool Ring::adopt() {
  const uint64_t tail = state_.tail.load(std::memory_order_acquire);
  const uint64_t end = state_.head.load(std::memory_order_acquire);
  if (end < tail || end - tail > size_ || tail % record_align != 0 || end % record_align != 0) {
    return false;
  }
  const Tail stored{state_.tail_lsn, state_.tail_epoch, state_.tail_chain};
  before_first_ = last_ = stored;
  bool first = true;
  for (uint64_t at = tail; at < end;) {
    at = skip_pad(at, end);
    if (at >= end) return false;  // a record always follows a pad
    const RecordHead head = head_at(at);
    const bool plausible = head.size >= sizeof(RecordHead) && head.size <= max_record &&
                           head.size % record_align == 0 && head.size <= lap_left(at) &&
                           head.size <= end - at && head.size == record_size(head.payload_size) &&
                           head.lsn != 0;
    if (!plausible) return false;
    // Killed while the tail moved: what came before the first record is not known any more, and
    // nobody needs it but a peer that ends exactly there, whose own chain proves itself in find().
    if (first && !follows(last_, head)) before_first_ = last_ = {head.lsn - 1, 0, 0};
    if (!first && !follows(last_, head)) return false;
    first = false;
    last_ = tail_after(head);
    at += head.size;
  }
  return true;
}

void Ring::set_tail(uint64_t cursor, const Tail& tail) {
  before_first_ = tail;
  state_.tail_lsn = tail.lsn;
  state_.tail_epoch = tail.epoch;
  state_.tail_chain = tail.chain;
  state_.tail.store(cursor, std::memory_order_release);
}

void Ring::reset(const Tail& tail) {
  const std::lock_guard lock(mutex_);
  last_ = tail;
  state_.head_lsn = tail.lsn;
  state_.head_epoch = tail.epoch;
  state_.head_chain = tail.chain;
  set_tail(state_.head.load(std::memory_order_relaxed), tail);
  if (state_.tail.load(std::memory_order_relaxed) % record_align != 0) {
    state_.head.store(0, std::memory_order_release);
    state_.tail.store(0, std::memory_order_release);
  }
  reserved_ = 0;
  intact_ = size_ >= min_ring && size_ % 4096 == 0;
}

/**
 * A reservation is granted when a largest record's worth of room stays besides it. So a pad, which
 * is smaller than the record that did not fit, finds room too; and what is reserved when a pad was
 * made fits into the lap that begins there.
 */
bool Ring::fits(size_t bytes) const {
  const uint64_t used =
      state_.head.load(std::memory_order_relaxed) - state_.tail.load(std::memory_order_relaxed);
  return used + reserved_ + bytes + max_record <= size_;
}

/** Forgets the oldest record. */
void Ring::drop_first() {
  const uint64_t end = state_.head.load(std::memory_order_relaxed);
  const uint64_t at = skip_pad(state_.tail.load(std::memory_order_relaxed), end);
  if (at >= end) {
    set_tail(end, last_);
    return;
  }
  const RecordHead head = head_at(at);
  if (dropped_) {
    Record record;
    // The ring's own bytes: whole since they were written.
    if (parse_record({arena_ + at % size_, head.size}, record, true) == ParseStatus::ok) {
      dropped_(record);
    }
  }
  set_tail(at + head.size, tail_after(head));
}

/** The records after `lsn`, in order. */
void Ring::visit(Lsn lsn, const std::function<void(const Record&)>& each) const {
  const uint64_t end = state_.head.load(std::memory_order_relaxed);
  uint64_t at = skip_pad(state_.tail.load(std::memory_order_relaxed), end);
  for (; at < end; at = skip_pad(at, end)) {
    const RecordHead head = head_at(at);
    Record record;
    if (head.lsn > lsn &&
        parse_record({arena_ + at % size_, head.size}, record, true) == ParseStatus::ok) {
      each(record);
    }
    at += head.size;
  }
}

void Ring::for_each(Lsn lsn, const std::function<void(const Record&)>& each) const {
  const std::lock_guard lock(mutex_);
  visit(lsn, each);
}

Tail Ring::skip_to_end(Lsn lsn, const std::function<void(const Record&)>& each) {
  const std::lock_guard lock(mutex_);
  visit(lsn, each);
  set_tail(state_.head.load(std::memory_order_relaxed), last_);
  return last_;
}

bool Ring::drop(size_t most) {
  const std::lock_guard lock(mutex_);
  const auto any = [this] {
    return state_.tail.load(std::memory_order_relaxed) <
           state_.head.load(std::memory_order_relaxed);
  };
  for (; most > 0 && any(); most--) drop_first();
  return any();
}

Tail Ring::leave_gap(uint64_t chain, const std::function<void(const Record&)>& each) {
  const std::lock_guard lock(mutex_);
  visit(0, each);
  last_ = {last_.lsn + 1, last_.epoch, chain};
  state_.head_lsn = last_.lsn;
  state_.head_epoch = last_.epoch;
  state_.head_chain = last_.chain;
  set_tail(state_.head.load(std::memory_order_relaxed), last_);
  return last_;
}

bool Ring::for_some(uint64_t& cursor, size_t most,
                    const std::function<void(const Record&)>& each) const {
  const std::lock_guard lock(mutex_);
  const uint64_t end = state_.head.load(std::memory_order_relaxed);
  uint64_t at = std::max(cursor, state_.tail.load(std::memory_order_relaxed));
  for (at = skip_pad(at, end); most > 0 && at < end; most--, at = skip_pad(at, end)) {
    const RecordHead head = head_at(at);
    Record record;
    if (parse_record({arena_ + at % size_, head.size}, record, true) == ParseStatus::ok) {
      each(record);
    }
    at += head.size;
  }
  cursor = at;
  return at < end;
}

void Ring::keep(bool all) {
  const std::lock_guard lock(mutex_);
  keep_ = all;
}

bool Ring::reserve(size_t bytes, bool drop) {
  const std::lock_guard lock(mutex_);
  while (drop && !keep_ && !fits(bytes) &&
         state_.tail.load(std::memory_order_relaxed) <
             state_.head.load(std::memory_order_relaxed)) {
    drop_first();
  }
  if (!fits(bytes)) {
    turned_away_++;
    return false;
  }
  reserved_ += bytes;
  return true;
}

void Ring::release(size_t bytes) {
  const std::lock_guard lock(mutex_);
  assert(bytes <= reserved_);
  reserved_ -= bytes;
}

Lsn Ring::append(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload,
                 uint64_t epoch, uint64_t* early) {
  RecordHead head{};
  head.kind = static_cast<uint16_t>(kind);
  head.flags = flags;
  head.file = file;
  measure_payload(payload, head);
  const size_t size = record_size(head.payload_size);

  const std::lock_guard lock(mutex_);
  assert(size <= reserved_ && size <= max_record);
  reserved_ -= size;
  uint64_t at = state_.head.load(std::memory_order_relaxed);
  const uint64_t left = lap_left(at);
  if (left < size) {
    if (left >= sizeof(RecordHead)) {
      RecordHead pad{};
      pad.kind = static_cast<uint16_t>(Kind::pad);
      pad.size = static_cast<uint32_t>(left);
      std::memcpy(arena_ + at % size_, &pad, sizeof pad);
    }
    at += left;
  }
  write_record(arena_ + at % size_, head, payload, last_, epoch);
  if (early != nullptr) std::atomic_ref(*early).store(last_.lsn, std::memory_order_release);
  state_.head_lsn = last_.lsn;
  state_.head_epoch = last_.epoch;
  state_.head_chain = last_.chain;
  state_.head.store(at + size, std::memory_order_release);
  return last_.lsn;
}

Tail Ring::last() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

Tail Ring::before_first() const {
  const std::lock_guard lock(mutex_);
  return before_first_;
}

bool Ring::find(const Tail& after, uint64_t& cursor) const {
  const std::lock_guard lock(mutex_);
  const uint64_t end = state_.head.load(std::memory_order_relaxed);
  uint64_t at = skip_pad(state_.tail.load(std::memory_order_relaxed), end);
  if (after.lsn == last_.lsn) {
    if (after.chain != last_.chain || after.epoch != last_.epoch) return false;
    cursor = end;
    return true;
  }
  if (after.lsn > last_.lsn || after.lsn < before_first_.lsn) return false;
  for (; at < end; at = skip_pad(at, end)) {
    const RecordHead head = head_at(at);
    if (head.lsn == after.lsn + 1) {
      cursor = at;
      return follows(after, head);
    }
    at += head.size;
  }
  return false;
}

uint64_t Ring::after(uint64_t cursor) const {
  return state_.head.load(std::memory_order_acquire) - cursor;
}

std::span<const uint8_t> Ring::next(uint64_t& cursor, size_t limit, Lsn& end) const {
  const uint64_t stop = state_.head.load(std::memory_order_acquire);
  const uint64_t start = skip_pad(cursor, stop);
  uint64_t at = start;
  while (at < stop) {
    const uint64_t left = lap_left(at);
    if (at > start && left == size_) break;  // a new lap: another piece
    if (left < sizeof(RecordHead)) break;
    const RecordHead head = head_at(at);
    if (head.kind == static_cast<uint16_t>(Kind::pad)) break;
    if (at > start && at + head.size - start > limit) break;
    end = head.lsn;
    at += head.size;
  }
  cursor = at;
  return {arena_ + start % size_, static_cast<size_t>(at - start)};
}

void Ring::free_to(Lsn lsn) {
  const std::lock_guard lock(mutex_);
  const uint64_t end = state_.head.load(std::memory_order_relaxed);
  uint64_t tail = state_.tail.load(std::memory_order_relaxed);
  Tail before = before_first_;
  for (uint64_t at = skip_pad(tail, end); at < end; at = skip_pad(at, end)) {
    const RecordHead head = head_at(at);
    if (head.lsn > lsn) break;
    at += head.size;
    tail = at;
    before = tail_after(head);
  }
  if (tail != state_.tail.load(std::memory_order_relaxed)) set_tail(tail, before);
}

uint64_t Ring::used() const {
  return state_.head.load(std::memory_order_acquire) - state_.tail.load(std::memory_order_acquire);
}

uint64_t Ring::turned_away() const {
  const std::lock_guard lock(mutex_);
  return turned_away_;
}

}  // namespace holdfast::replica
