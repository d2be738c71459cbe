#pragma once
#include <functional>
#include <span>
#include <string>

#include "common/fd.h"
#include "common/result.h"
#include "replica/record.h"

/**
 * The secondary's journal: a preallocated file, written O_DIRECT | O_DSYNC in whole 4 KiB blocks,
 * used as a ring. Each `write` begins a block and ends with a pad, so no block that was
 * acknowledged is written again before the checkpoint has passed it.
 */
namespace holdfast::replica {

inline constexpr size_t journal_block = 4096;

/** Where a record begins: bytes since the journal's beginning of time (position = % size). */
struct JournalPoint {
  uint64_t cursor = 0;  // a multiple of journal_block
  Tail tail;            // what comes before the record at `cursor`
};

class Journal {
 public:
  /** Opens `path`, made with `size` bytes of zeros when absent. EINVAL: of another size. */
  Result<bool> open(const std::string& path, uint64_t size);

  /** Forgets everything and goes on after `tail` at cursor 0. */
  void reset(const Tail& tail);

  /**
   * Finds the end: from `from` on, every record that is well-formed and follows. The first that is
   * not ends the journal (a torn write, or an older lap). `each` sees them in order.
   */
  Result<JournalPoint> recover(
      const JournalPoint& from,
      const std::function<void(const Record&, std::span<const uint8_t>)>& each);

  /**
   * Appends whole records, durable when it returns 0. `buffer` is journal_block-aligned, with room
   * up to the next multiple of it: the pad is written there. ENOSPC: no room before `free_to`.
   * `tail`: after the last record. Any other errno: the journal must not be used any more.
   */
  int write(uint8_t* buffer, size_t size, const Tail& tail);

  /** Where the next write will go. */
  JournalPoint end() const;
  /** Everything before this point is applied and checkpointed. */
  void free_to(uint64_t cursor);
  uint64_t room() const;
  uint64_t used() const;

 private:
  Fd fd_;
  uint64_t size_ = 0;
  uint64_t free_ = 0;  // cursor of the oldest block that is kept
  JournalPoint end_;
};

}  // namespace holdfast::replica
