#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>

#include "replica/dirty.h"
#include "replica/events.h"
#include "replica/frames.h"
#include "replica/ids.h"
#include "replica/locks.h"
#include "replica/log.h"
#include "replica/tree.h"

/**
 * The source's side of a resync: takes what is dirty, piece by piece, and appends statements of how
 * it is now to the stream, between the changes of the application. A piece is read under the lock
 * of its file, so its place in the stream says when it was true, and old data never goes over new.
 * What the application changes meanwhile travels as always; what of it the target cannot apply,
 * because the file or the directory has not come yet, the target reports (`missing`), and it
 * becomes dirty.
 *
 * A report or an answer of the target can be lost with the connection, or with the target. So while
 * a resync runs the ring keeps what the target has not applied (durable is not enough), and when a
 * connection comes back (or the resync ends early) Dirty::touch gets every record of the ring that
 * comes after what the target had applied before: statements, changes and comparisons.
 */
namespace holdfast::replica {

struct ResyncOptions {
  uint64_t run = 1;               // number of this resync
  uint64_t bytes_per_second = 0;  // `reiallowedbw`; 0: no limit
  double latency_factor = 1.5;    // the application's p99 of a change may grow by so much …
  double floor = 0.05;            // … but this share of the bandwidth is always used
  size_t piece = 256u << 10;      // bytes of a file read at once
  uint64_t ring_share = 0;        // bytes of the ring that statements may fill; 0: a quarter
};

struct ResyncProgress {
  std::atomic<uint64_t> run{0};
  std::atomic<uint64_t> sent_bytes{0};  // of statements
  std::atomic<uint64_t> read_bytes{0};  // of files
  std::atomic<uint64_t> statements{0};
  std::atomic<uint64_t> missing{0};  // reported by the target
  std::atomic<uint64_t> rate{0};     // bytes per second, over the last seconds
  std::atomic<Lsn> last_statement{0};
};

/** What the resync asks of the link. */
class ResyncStream {
 public:
  virtual ~ResyncStream() = default;
  /** LSN up to which the target has applied everything. What it reported before it said so has been
   * given to `missing` and `differs` before this returns it. */
  virtual Lsn applied() const = 0;
  virtual uint64_t ring_used() const = 0;
  virtual uint64_t ring_size() const = 0;
  /** p99 of the application's changes in the last second, ns; 0: there was none. */
  virtual int64_t change_p99_ns() const = 0;
};

class Resync {
 public:
  Resync(Tree& tree, const Ids& ids, Locks& locks, Log& log, ResyncStream& stream, Dirty& dirty,
         Events& events);
  ~Resync();
  Resync(const Resync&) = delete;
  Resync& operator=(const Resync&) = delete;

  /**
   * Starts the thread. `whole` is called once, on it, when nothing is dirty any more and the target
   * has applied every statement; an error (of a local read) goes to `failed`, once, and what could
   * not be stated is dirty again. After either the thread ends.
   */
  void start(const ResyncOptions& options, std::function<void()> whole,
             std::function<void(int error, const char* call)> failed);
  /** Ends the thread; what was not stated stays dirty. Not from within `whole` or `failed`. */
  void stop();
  bool running() const;

  /** Body of a `missing` frame: what the target cannot apply. False: it is none. Any thread. */
  bool missing(std::span<const uint8_t> body);
  /** Body of a `differs` frame about a comparison of this resync. */
  void differs(std::span<const uint8_t> body);
  const ResyncProgress& progress() const { return progress_; }

 private:
  struct Impl;
  Impl* impl_;
  ResyncProgress progress_;
};

}  // namespace holdfast::replica
