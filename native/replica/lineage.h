#pragma once
#include <cstdint>
#include <vector>

#include "replica/super.h"

/**
 * Which of two copies is the source, and what the other needs: decided by epochs and LSNs only,
 * never by times or amounts. Pure functions; every case has a name and a test.
 *
 * A record is named by its epoch and its LSN: an epoch has one primary, and a primary that was not
 * stopped in order begins a new one. So two copies have the same history up to the end of the last
 * epoch start that both know, on the side where that end comes first.
 */
namespace holdfast::replica {

struct Faults;

/** A primary that was not stopped in order goes on so many LSNs after the last that it knows of:
 * further than it can have come since. */
inline constexpr Lsn unclean_jump = Lsn{1} << 32;

/** What a copy says about itself. */
struct Lineage {
  uint32_t node = 0;
  DiskState state = DiskState::none;
  Tail at;                          // after the last record that it has for sure
  Tail base;                        // inconsistent: where it was before the resync
  std::vector<EpochStart> history;  // oldest first; of one epoch there may be several entries
  bool was_primary = false;         // and not stopped in order: it may have more than `at`
  bool marks_lost = false;          // what more it may have is not known
  uint64_t resync = 0;              // number of the resync that is under way on it, 0: none
};

/** What the source can do without comparing. */
struct SourceMeans {
  Tail ring_first;           // before the first record of the ring
  Lsn dirty_since = 0;       // ring and dirty set together hold all that changed after this LSN
  bool dirty_whole = false;  // false: they do not, whatever the LSN; the ring still counts
  uint64_t resync = 0;       // number of the resync that this source runs, 0: none
};

enum class Rejoin : uint32_t {
  catch_up = 1,    // the ring has what is missing
  resume = 2,      // the same, in the middle of a resync
  dirty = 3,       // the dirty set has what is missing
  roll_back = 4,   // and the target takes back what only it has
  compare = 5,     // by hash: what is missing is not known
  first_copy = 6,  // the target has nothing, or something foreign
  fork = 7,        // both acknowledged alone: the operator chooses
  behind = 8,      // the source has nothing that the target lacks, and lacks what the target has
  unrelated = 9,   // no common history
};

/** What was found, for the log and the operator. */
struct Decision {
  Rejoin what = Rejoin::unrelated;
  Lsn common = 0;       // last LSN that both have
  uint64_t epoch = 0;   // of it
  Lsn source_more = 0;  // records after it, on each side, as far as known
  Lsn target_more = 0;
};

/**
 * The end of what both have: epoch and LSN. False: there is none. Of a copy that was primary and
 * not stopped in order, everything counts that the other has of its last epoch: what it lacks of
 * it its marks name.
 */
bool common_end(const Lineage& source, const Lineage& target, uint64_t& epoch, Lsn& lsn);
/** True: the copy acknowledged, or may have, something without its peer after this point. */
bool went_alone_after(const Lineage& copy, Lsn lsn);

/** `source` is the primary. */
Decision decide(const Lineage& source, const SourceMeans& means, const Lineage& target,
                const Faults* faults = nullptr);

/**
 * The same for a distant copy, whose stream is its own. A copy that has another history (that of
 * another server, after a takeover) or more than this one is compared: it is nobody's to keep.
 * One that was a primary itself is not touched (`fork`), unless it has given that up (`discard`).
 */
Decision decide_distant(const Lineage& source, const SourceMeans& means, const Lineage& target,
                        const Faults* faults = nullptr);

/** A chain value that no other history has. */
uint64_t random_chain();
/**
 * Where the stream of a distant copy begins. Two copies take an epoch for the same when its number,
 * its beginning and its primary are, so no two streams may begin at one LSN.
 */
Lsn random_beginning();

const char* name_of(Rejoin what);

/** What a superblock says: `at` is the end of the copy's records. */
Lineage lineage_of(const SuperState& state, const Tail& at);

/**
 * Adds the beginning of an epoch, or of its going alone or not. What began after that point is none
 * of this copy's: it was told of it and never got there. When the history is full, two
 * entries of one epoch become one that is alone when one of them is; if there are none, the oldest
 * epoch is forgotten.
 */
void add_epoch(SuperState& state, const EpochStart& start);

}  // namespace holdfast::replica
