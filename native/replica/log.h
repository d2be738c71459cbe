#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "replica/record.h"

/** What the file system server (ops_*.cc) sees of the stream. Implemented by link.h, and by a log
 * that keeps nothing for a directory that is mounted but not replicated. */
namespace holdfast::replica {

/** Called once when the wait is over: 0, or the errno for the application. Any thread. */
struct Waiter {
  void (*done)(void* context, uint64_t argument, int error) = nullptr;
  void* context = nullptr;
  uint64_t argument = 0;
};

class Log {
 public:
  virtual ~Log() = default;

  /**
   * Sets room for records of `bytes` in all aside, before the change is made locally, so that
   * append cannot fail. False: no room now; `ready` is called when it is worth trying again.
   */
  virtual bool reserve(size_t bytes, const Waiter& ready) = 0;
  /** Gives back what a reservation did not use. */
  virtual void release(size_t bytes) = 0;

  /**
   * Appends a record out of a reservation of at least record_size(payload) and returns its LSN.
   * The caller holds the locks of the files it changes: the order of LSNs is the order of changes.
   */
  virtual Lsn append(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload) = 0;

  /**
   * As append, and stores the LSN at `early` before the record counts: a process that is killed
   * between the two leaves there an LSN beyond the end of the ring. `early` lies in shared memory.
   */
  virtual Lsn append_noting(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload,
                            uint64_t* early) {
    const Lsn lsn = append(kind, flags, file, payload);
    *early = lsn;
    return lsn;
  }

  /** LSN of the last record. */
  virtual Lsn last() const = 0;

  /** Sends what waits to be sent; returns at once. Called after the application has its answer. */
  virtual void push() = 0;

  /**
   * Asks that everything up to `lsn` be acknowledged by all that must have it (by the policy:
   * durable, or received). True: it is already. False: `waiter` will be called.
   * Call it before the local fdatasync, so that both run at once.
   */
  virtual bool sync(Lsn lsn, const Waiter& waiter) = 0;

  /** strict: true when every change waits for the peer's receipt before the application goes on. */
  virtual bool strict() const = 0;
  /** strict: as sync, for the receipt. */
  virtual bool receipt(Lsn lsn, const Waiter& waiter) = 0;

  /** The peer's free space, for statfs: the smaller side counts. False: not known. */
  virtual bool peer_space(uint32_t volume, uint64_t& blocks, uint64_t& free_blocks,
                          uint32_t& block_size, uint64_t& files, uint64_t& free_files) = 0;

  /** A local failure that makes this copy unfit (failed write-back, failed fsync). */
  virtual void local_failed(int error, const char* call) = 0;
};

}  // namespace holdfast::replica
