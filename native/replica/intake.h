#pragma once
#include <cstdint>
#include <span>

#include "replica/feed.h"
#include "replica/journal.h"

/**
 * What the secondary has received and not yet written: bytes of the stream, taken apart into
 * records and checked as they come, in the memory from which they go to the journal.
 *
 *   read into room(); took(bytes); … ; write(); acknowledge; pass_on()
 *
 * The record `synced` ends a batch, and so a write: the applier makes a checkpoint behind it.
 */
namespace holdfast::replica {

/** A batch of this size is written without waiting for more. */
inline constexpr size_t batch_bytes = 1u << 20;
/** The smallest journal that can hold the largest batch, and one being applied. */
inline constexpr uint64_t min_journal = 8u << 20;

class Intake {
 public:
  Intake(Journal& journal, Feed& feed) : journal_(journal), feed_(feed) {}
  ~Intake();
  Intake(const Intake&) = delete;
  Intake& operator=(const Intake&) = delete;

  /** A connection begins: records go on after what is here; none of a later epoch. */
  void begin(uint64_t epoch);
  /** Where the next bytes of records go; never empty while batches are written when full(). */
  std::span<uint8_t> room();
  /** That many bytes have come. False: something that is no record, or does not follow; what came
   * before it stays. */
  bool took(size_t bytes);
  /** The connection is gone: forgets the beginning of a record. */
  void cut();
  /** Forgets everything that is not written. */
  void clear();

  /** True: no record is there in part, or what follows a `synced` was not looked at yet. */
  bool whole() const { return fill_ == parsed_ || sealed_; }
  /** Bytes of whole records that wait to be written. */
  size_t waiting() const { return parsed_ - start_; }
  bool full() const { return waiting() >= batch_bytes || sealed_; }
  /** True: the batch ends with `synced`. After its write, `took(0)` looks at what follows. */
  bool sealed() const { return sealed_; }
  /** The resync that this `synced` ends. */
  uint64_t sealed_run() const { return sealed_run_; }
  /** After the last whole record. */
  const Tail& received() const { return tail_; }

  /** Writes what waits to the journal. ENOSPC: no room yet, nothing has changed. */
  int write();
  /** Hands what was written over to the feed. */
  void pass_on();

 private:
  Journal& journal_;
  Feed& feed_;
  Feed::Buffer* buffer_ = nullptr;
  size_t start_ = 0;   // of the batch, a multiple of journal_block
  size_t parsed_ = 0;  // end of its whole records
  size_t fill_ = 0;    // end of what has come
  Tail tail_;
  uint64_t epoch_ = 0;
  bool sealed_ = false;
  uint64_t sealed_run_ = 0;

  size_t written_at_ = 0, written_ = 0;  // of the buffer; for pass_on
  JournalPoint written_from_;
};

}  // namespace holdfast::replica
