#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "common/result.h"
#include "replica/changes.h"
#include "replica/ids.h"
#include "replica/journal.h"
#include "replica/record.h"
#include "replica/tree.h"
#include "replica/verify.h"

/**
 * Makes the changes of the secondary: records in, files out, in the order of the LSNs, on a thread
 * of its own.
 *
 *   applier.start(checkpoint, ApplyMode::replay);  // from the superblock's checkpoint
 *   applier.submit(…) for all the journal holds
 *   applier.end_replay();                    // from here on nothing unexpected is forgiven
 *   applier.submit(…) for what the receiver has made durable
 *   applier.checkpoint() now and then; applier.stop()
 *
 * In a resync (ApplyMode::resync) the undo log is written before each batch, until the record
 * `synced`, which is the last of its batch.
 */
namespace holdfast::replica {

struct Faults;
class Undo;

/** Whole records in order, validated (parse_record, follows), without gaps. */
struct Batch {
  std::shared_ptr<const void> memory;  // keeps `records` alive
  std::span<const uint8_t> records;    // pads are passed over
  JournalPoint end;                    // where the journal goes on after them
};

struct ApplierOptions {
  uint64_t max_queued = 32u << 20;  // bytes of records; submit waits above it
  const Faults* faults = nullptr;   // tests only
  Undo* undo = nullptr;             // of a resync; null: none is written
  /** Ends a resync (Changes::end_resync) and keeps of the orphanage what is to be kept, durably;
   * null: nothing is. 0 or errno. */
  std::function<int(Changes& changes, const Record& synced)> end_resync;
};

/** Why applying stopped. */
struct ApplyFailure {
  Lsn lsn = 0;
  FileId file = 0;
  Kind kind = Kind::pad;
  int error = 0;
  const char* call = "";  // the call that failed, or what was not as it must be
};

/** What the applier has to say; called from its thread, so nothing here may wait for it. */
class ApplierSink {
 public:
  virtual ~ApplierSink() = default;
  /** Everything up to this LSN is in the file system, mtimes included (once per batch). */
  virtual void applied(Lsn lsn) = 0;
  /** The end of the replay was reached and the orphanage is gone. */
  virtual void replayed(Lsn lsn) = 0;
  /** Nothing is applied any more: this copy is `failed`. */
  virtual void failed(const ApplyFailure& failure) = 0;
  /** A check record found a difference (one call each), or the end of a comparison (kind end). */
  virtual void checked(const CheckResult& result) = 0;
  /** In a resync: what the record with this LSN speaks of and is not there. */
  virtual void missing(const Missing& what, Lsn lsn) = 0;
  /**
   * `synced` was applied. In a resync the orphanage is empty by now, and everything is durable: a
   * replay may begin at `end`, and what follows is applied as ever. 0, or why that cannot be noted.
   */
  virtual int synced(const Record& record, const JournalPoint& end) = 0;
};

struct ApplierCounters {
  uint64_t records = 0;
  uint64_t bytes = 0;  // of data written
  uint64_t batches = 0;
  uint64_t displaced = 0;  // moved to the orphanage
  uint64_t skipped = 0;    // in a replay: what concerned files that are gone
  uint64_t differences = 0;
};

class Applier {
 public:
  /** All three outlive the applier. */
  Applier(Tree& tree, Ids& ids, ApplierOptions options, ApplierSink& sink);
  ~Applier();
  Applier(const Applier&) = delete;
  Applier& operator=(const Applier&) = delete;

  /**
   * Begins after `from`. In a replay, and in a resync: the file system may be anywhere between
   * `from` and the end of what is submitted before `end_replay`. 0 or errno (of the thread, or of
   * the look for what a replay that was cut short left behind).
   */
  int start(const JournalPoint& from, ApplyMode mode);
  /** After a drain: goes on after `from`, in a resync. 0 or errno. */
  int begin_resync(const JournalPoint& from);

  /**
   * Queues a batch; waits while `max_queued` bytes are waiting (one batch is always taken). False:
   * applying failed or was stopped. One thread at a time.
   */
  bool submit(Batch batch);
  /** After what was submitted so far the replay is over. As submit. */
  bool end_replay();

  /** Bytes queued: what a receiver looks at that would rather read from the journal than wait. */
  uint64_t queued() const;
  /** Waits until all that was submitted is applied. False: failed or stopped before. */
  bool drain();

  /** Everything up to here is in the file system (in the page cache). */
  JournalPoint applied() const;
  /**
   * Makes what is applied durable: syncfs, then the ids. The value is the point from which a replay
   * has to begin: save it (before the next call), then free the journal up to it. While a folder
   * waits for the end of a replay (changes.h) it is the one before that, so perhaps the same again.
   * Applying goes on meanwhile. Any thread, one at a time.
   */
  Result<JournalPoint> checkpoint();

  ApplierCounters counters() const;
  /** Ends the thread after the batch it is at; what is queued is dropped (the journal has it). */
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::replica
