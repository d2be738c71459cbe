#pragma once
#include <string>

#include "common/fd.h"
#include "common/result.h"
#include "replica/journal.h"

/**
 * The mirror's durable record on this server: file `super`, two 4 KiB slots written in turn,
 * O_DIRECT | O_DSYNC, each with a sequence number and a CRC-32C; the newer whole one counts. The
 * engine acknowledges nothing that it does not allow.
 */
namespace holdfast::replica {

inline constexpr size_t max_history = 128;

enum class DiskState : uint32_t {
  none = 0,          // never used
  in_sync = 1,       // holds every acknowledged change of its epoch
  outdated = 2,      // a whole, older state: it left, or was left
  failed = 3,        // its file system or journal failed
  inconsistent = 4,  // a resync is under way: the undo log leads back to `base`
};

struct EpochStart {
  uint64_t epoch;
  Lsn first;         // LSN before the first record of this epoch
  uint32_t primary;  // node id
  uint32_t alone;    // 1: acknowledged without the peer
};

struct SuperState {
  uint8_t set[16] = {};  // identity of the mirror; all zero: none yet
  uint32_t node = 0;
  DiskState state = DiskState::none;
  uint64_t epoch = 0;
  uint32_t required_peer = 1;  // 1: nothing is acknowledged without the peer
  uint32_t role = 0;           // 0 none, 1 prim, 2 second, as it last was
  uint32_t clean = 0;          // 1: stopped in order, nothing in flight
  JournalPoint checkpoint;     // second: everything before is in the file system
  Tail last;                   // prim: last record known when this was written
  // second, inconsistent: where the copy was before; outdated: since when it is; in sync: the end
  // of the resync that made it so (base_state 0). prim that the peer does not follow: everything
  // that changed after this record is dirty or marked (base_state 1).
  Tail base;
  uint32_t base_state = 0;  // inconsistent: DiskState that it had before
  // inconsistent: number of the resync, 0: it is being taken back. in sync: of the one that made it
  // so. prim: of the last that it ended.
  uint64_t resync = 0;
  uint32_t history_size = 0;
  EpochStart history[max_history] = {};
};

class Super {
 public:
  /** Opens or makes the file; EBADMSG: neither slot is whole. */
  Result<bool> open(const std::string& path);
  const SuperState& state() const { return state_; }
  /** Durable when it returns 0; errno: it is not, and nothing may be acknowledged by it. */
  int save(const SuperState& state);

 private:
  Fd fd_;
  uint64_t sequence_ = 0;
  SuperState state_;
};

}  // namespace holdfast::replica
