#pragma once
#include <functional>
#include <mutex>
#include <span>

#include "replica/record.h"
#include "replica/shared.h"

/**
 * The primary's records from the first that the peer may lack to the last, in shared memory. A
 * record lies in one piece; a pad fills the end of the ring. A record counts from the moment `head`
 * moves over it, so a worker that dies while it writes one leaves nothing behind.
 */
namespace holdfast::replica {

/** The smallest ring: a largest record being sent, another being made, and the rest of a lap. */
inline constexpr uint64_t min_ring = 4u << 20;

class Ring {
 public:
  /**
   * `shared` and `arena` (ring_size bytes, a multiple of 4096, at least min_ring) stay mapped while
   * this object lives. What a worker before had in it is taken over; fresh memory (all zero) is an
   * empty ring after Tail{}.
   */
  Ring(Shared* shared, uint8_t* arena);

  /** False: the memory holds something else than a history; `reset` makes it usable. */
  bool intact() const { return intact_; }

  /** Starts the history after `tail`, empty. No reservation may be out. */
  void reset(const Tail& tail);

  /**
   * Sets room aside. With `drop`, the oldest records go to make it, unless they are kept: for a
   * primary that is alone. False: no room (with `drop`: only what is being appended is in the way,
   * or they are kept), or more than a ring can ever hold.
   */
  bool reserve(size_t bytes, bool drop = false);
  void release(size_t bytes);
  /** Nothing is dropped while somebody reads: from when this returns. */
  void keep(bool all);
  /** Called for each record that is dropped, with the ring's lock held. Before the first drop. */
  void set_dropped(std::function<void(const Record&)> dropped) { dropped_ = std::move(dropped); }
  /**
   * Empties the ring for a peer that goes on after its end: each record after `lsn` is given to
   * `each`, with the ring's lock held. Returns the end.
   */
  Tail skip_to_end(Lsn lsn, const std::function<void(const Record&)>& each);
  /**
   * Forgets up to `most` of the oldest records, as `reserve` does to make room, also while they are
   * kept: nobody may be reading. False: the ring is empty.
   */
  bool drop(size_t most);
  /**
   * As skip_to_end, for a ring that lacks what came after its last record: the end counts as one
   * LSN later, with this chain, so that no copy which has the last record seems to have all.
   */
  Tail leave_gap(uint64_t chain, const std::function<void(const Record&)>& each);
  /** Gives each record after `lsn` to `each`, with the ring's lock held. */
  void for_each(Lsn lsn, const std::function<void(const Record&)>& each) const;
  /**
   * Gives up to `most` records from `cursor` on to `each`, with the ring's lock held, and moves
   * `cursor` behind them; from the first record when that is later. False: there are no more.
   */
  bool for_some(uint64_t& cursor, size_t most,
                const std::function<void(const Record&)>& each) const;
  /** Appends out of a reservation; see Log::append and, for `early`, Log::append_noting. */
  Lsn append(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload, uint64_t epoch,
             uint64_t* early = nullptr);

  Tail last() const;
  Tail before_first() const;

  /** Cursor of the record after `after.lsn`; false: not in the ring, or its chain is another. */
  bool find(const Tail& after, uint64_t& cursor) const;
  /**
   * Whole records from `cursor` in one piece, at most `limit` bytes (at least one record), pads
   * skipped; moves `cursor` behind them and sets `end` to the last one's LSN. Empty: no more.
   * They stay readable until `free_to` passes them.
   */
  std::span<const uint8_t> next(uint64_t& cursor, size_t limit, Lsn& end) const;
  /** Bytes from `cursor` on. Takes no lock. */
  uint64_t after(uint64_t cursor) const;
  /** Everything up to and with this LSN is no longer needed. */
  void free_to(Lsn lsn);

  uint64_t used() const;
  uint64_t size() const { return size_; }
  uint64_t turned_away() const;  // reservations refused for want of room

 private:
  RecordHead head_at(uint64_t cursor) const;
  uint64_t lap_left(uint64_t cursor) const { return size_ - cursor % size_; }
  uint64_t skip_pad(uint64_t cursor, uint64_t head) const;
  bool adopt();
  bool fits(size_t bytes) const;
  void drop_first();
  void visit(Lsn lsn, const std::function<void(const Record&)>& each) const;
  void set_tail(uint64_t cursor, const Tail& tail);

  Shared* shared_;
  RingState& state_;
  uint8_t* arena_;
  uint64_t size_;
  bool intact_ = false;
  mutable std::mutex mutex_;
  Tail last_;          // after the last record
  Tail before_first_;  // before the first
  uint64_t reserved_ = 0;
  uint64_t turned_away_ = 0;
  bool keep_ = false;
  std::function<void(const Record&)> dropped_;
};

}  // namespace holdfast::replica
