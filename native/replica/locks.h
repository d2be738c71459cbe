#pragma once
#include <array>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "replica/record.h"

namespace holdfast::replica {

/** What a sync of a file has to cover, and what is covered already. */
struct SyncPoint {
  bool known = false;    // false: nothing is known of the file: all of it counts as new
  bool failed = false;   // a sync failed: EIO for ever
  Lsn lsn = 0;           // of the last change; 0: none since the table knows it
  uint64_t changes = 0;  // of the file, counted
  bool clean_data = false;
  bool clean_all = false;
};

/**
 * Locks of the files, striped by FileId, and beside each stripe what is known about the files in
 * it: last LSN, changes since the last good sync, a failed one. Several stripes are taken in
 * ascending order. Bounded: a file that falls out counts as changed (SyncPoint::known).
 */
class Locks {
 public:
  static constexpr size_t stripes = 1024;
  static constexpr size_t states_max = 64;  // of a stripe

  /** Holds the stripes of up to four files; 0 stands for none. */
  class Hold {
   public:
    Hold(Locks& locks, FileId a, FileId b = 0, FileId c = 0, FileId d = 0);
    ~Hold() { unlock(); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    void unlock();

   private:
    Locks& locks_;
    size_t count_ = 0;
    std::array<size_t, 4> held_{};
  };

  /** The file was changed; `lsn` 0: the change is in no record. Its stripe is held. */
  void changed(FileId id, Lsn lsn);
  /** Goes up with each change of the file, and when nothing is known of it. Its stripe is held. */
  uint64_t changes(FileId id);
  /** A file that is gone. Its stripe is held. */
  void forget(FileId id);
  /** Takes the stripe itself; so do the two below. */
  SyncPoint sync_point(FileId id);
  /** A sync that began at `point` went well. */
  void synced(FileId id, const SyncPoint& point, bool data_only);
  void failed(FileId id);

 private:
  struct State {
    Lsn lsn = 0;
    uint64_t changes = 0;
    uint64_t synced_data = 0;
    uint64_t synced_all = 0;
    bool failed = false;
  };
  struct Stripe {
    std::mutex mutex;
    std::unordered_map<FileId, State> states;
    // Numbers the changes of all its files: a state that fell out and came back is never older.
    uint64_t changes = 0;
  };

  static size_t stripe_of(FileId id);
  State& state(Stripe& stripe, FileId id);

  std::array<Stripe, stripes> stripes_;
};

}  // namespace holdfast::replica
