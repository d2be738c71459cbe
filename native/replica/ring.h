#pragma once
#include <condition_variable>
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

class Ring {
 public:
  /** `shared` stays mapped while this object lives. A new ring (head 0) starts after `tail`. */
  Ring(Shared* shared, uint8_t* arena);

  /** Starts the history after `tail`, empty. */
  void reset(const Tail& tail);

  bool reserve(size_t bytes);
  void release(size_t bytes);
  /** Appends out of a reservation; see Log::append. */
  Lsn append(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload,
             uint64_t epoch);

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
  /** Everything up to and with this LSN is no longer needed. */
  void free_to(Lsn lsn);

  uint64_t used() const;
  uint64_t size() const;
  uint64_t turned_away() const;  // reservations refused for want of room

 private:
  Shared* shared_;
  uint8_t* arena_;
  mutable std::mutex mutex_;
  uint64_t reserved_ = 0;
  uint64_t turned_away_ = 0;
};

}  // namespace holdfast::replica
