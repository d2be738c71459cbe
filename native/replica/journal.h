#pragma once
#include <functional>
#include <span>
#include <string>

#include "common/result.h"
#include "replica/disk.h"
#include "replica/faults.h"
#include "replica/record.h"

/**
 * The secondary's journal: a preallocated file, written O_DIRECT | O_DSYNC in whole 4 KiB blocks,
 * used as a ring. A `write` begins a block and fills its last one with zeros, so no block that was
 * acknowledged is written again before the checkpoint has passed it. At the end of the file it goes
 * on at the beginning, also in the middle of a record. There is no head and no index: where the
 * history ends is found by the chain of the records.
 */
namespace holdfast::replica {

inline constexpr size_t journal_block = disk_block;

/** Where a record begins: bytes since the journal's beginning of time (position = % size). */
struct JournalPoint {
  uint64_t cursor = 0;  // a multiple of journal_block
  Tail tail;            // what comes before the record at `cursor`
};

/** One thread writes; `read` and the readers may run in others, on what was written before. */
class Journal {
 public:
  explicit Journal(const Faults* faults = nullptr) : faults_(faults) {}

  /**
   * Opens `path`, made with `size` bytes of zeros when absent (then the value is true). EINVAL: the
   * file is of another size, or `size` is not a multiple of journal_block.
   */
  Result<bool> open(const std::string& path, uint64_t size);

  /** Forgets everything, durably, and goes on after `tail` at cursor 0. 0 or errno. */
  int reset(const Tail& tail);

  /**
   * Finds the end: from `from` on, every record that is well-formed and follows. The first that is
   * not ends the journal (a torn write, or an older lap). `each` sees them in order. What is found
   * is durable afterwards. EBADMSG: `from` cannot be a point of this journal.
   */
  Result<JournalPoint> recover(
      const JournalPoint& from,
      const std::function<void(const Record&, std::span<const uint8_t>)>& each);

  /**
   * Appends whole records, durable when it returns 0. `buffer` is journal_block-aligned, with room
   * up to the next multiple of it, which is filled with zeros. ENOSPC: no room before `free_to`.
   * `tail`: after the last record. Any other errno: the journal must not be used any more.
   */
  int write(uint8_t* buffer, size_t size, const Tail& tail);

  /** Where the next write will go. */
  JournalPoint end() const { return end_; }
  /** Everything before this point is applied and checkpointed. */
  void free_to(uint64_t cursor);
  uint64_t room() const { return size_ - used(); }
  uint64_t used() const { return end_.cursor - free_; }
  uint64_t size() const { return size_; }
  /** False: the file system has no O_DIRECT; writes are O_DSYNC through the page cache. */
  bool direct() const { return file_.direct; }

  /** Whole blocks at `cursor` into aligned memory, round the end of the file. 0 or errno. */
  int read(uint64_t cursor, uint8_t* buffer, size_t size) const;
  const Faults* faults() const { return faults_; }

 private:
  DurableFile file_;
  uint64_t size_ = 0;
  uint64_t free_ = 0;  // cursor of the oldest block that is kept
  JournalPoint end_;
  const Faults* faults_;
};

/** Reads a journal in order, 1 MiB at a time. */
class JournalReader {
 public:
  /** `journal` outlives the reader. */
  JournalReader(const Journal& journal, const JournalPoint& from);

  /**
   * The next record that follows, from blocks before `limit` (a cursor). False: there is none. The
   * record and its bytes stay valid until the next call. Errors: those of pread.
   */
  Result<bool> next(uint64_t limit, Record& record, std::span<const uint8_t>& bytes);

  /** After the last record that was returned: where a write would begin, and what it follows. */
  JournalPoint point() const;
  /** A point to recover from: the last record so far that begins a block, or where this began. */
  const JournalPoint& start() const { return start_; }

 private:
  enum class Look { found, absent, beyond };
  Result<Look> look(uint64_t limit, Record& record, std::span<const uint8_t>& bytes);
  int more(uint64_t limit);

  const Journal& journal_;
  AlignedBuffer buffer_;
  uint64_t base_;      // cursor of the first byte in the buffer
  size_t filled_ = 0;  // bytes of it, whole blocks
  size_t at_ = 0;      // where the next record is looked for
  uint64_t end_;       // cursor after the last record
  Tail tail_;
  JournalPoint start_;
};

}  // namespace holdfast::replica
