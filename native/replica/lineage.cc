#include "replica/lineage.h"

#include <sys/random.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "replica/faults.h"

namespace holdfast::replica {
namespace {

constexpr Lsn no_end = UINT64_MAX;

/** A stretch of a copy's history: after `first`, up to and with `end`. */
struct Stretch {
  uint64_t epoch = 0;
  std::optional<EpochStart> start;  // where its epoch began; none: the copy does not say
  Lsn first = 0, end = 0;
  bool alone = false;
};

/** Where the copy is, as a state that can be gone on from. */
const Tail& place_of(const Lineage& copy) {
  return copy.state == DiskState::inconsistent ? copy.base : copy.at;
}

/** The copy's history in stretches. Epochs that it was told of and has nothing of are left out. */
std::vector<Stretch> stretches_of(const Lineage& copy) {
  const Tail& at = place_of(copy);
  std::vector<Stretch> out;
  for (const EpochStart& entry : copy.history) {
    if (entry.first > at.lsn) break;
    const bool again = !out.empty() && out.back().epoch == entry.epoch;
    Stretch next;
    next.epoch = entry.epoch;
    next.start = again ? out.back().start : entry;
    next.first = entry.first;
    next.alone = entry.alone != 0;
    if (!out.empty()) out.back().end = entry.first;
    out.push_back(next);
  }
  // Records of a later epoch than it was told of: where that began is not known, nor where the
  // one before ended.
  if (at.epoch > (out.empty() ? 0 : out.back().epoch)) {
    Stretch only;
    only.epoch = at.epoch;
    out.assign(1, only);
  }
  if (!out.empty()) out.back().end = copy.was_primary ? no_end : at.lsn;
  return out;
}

/** True when both stretches lie in the same epoch of the same primary. */
bool same_epoch(const Stretch& a, const Stretch& b) {
  if (a.epoch != b.epoch) return false;
  if (!a.start || !b.start) return true;
  return a.start->first == b.start->first && a.start->primary == b.start->primary;
}

/** Where an epoch ends in a history. */
Lsn end_of(const std::vector<Stretch>& history, uint64_t epoch) {
  Lsn end = 0;
  for (const Stretch& one : history) {
    if (one.epoch == epoch) end = one.end;
  }
  return end;
}

/** Records that a copy has after `lsn`, as far as known: a jump over what nobody knows is none. */
Lsn more_after(const Lineage& copy, Lsn lsn) {
  const Lsn end = copy.at.lsn;
  if (end <= lsn) return 0;
  for (const EpochStart& entry : copy.history) {
    const bool jumped = entry.first > lsn && entry.first - lsn > unclean_jump / 2;
    if (jumped && entry.first <= end) return end - entry.first;
  }
  return end - lsn;
}

/** True when the copy has an epoch that began at or after `lsn` and that the other does not know.
 */
bool began_after(const Lineage& copy, const Lineage& other, Lsn lsn) {
  const std::vector<Stretch> theirs = stretches_of(other);
  for (const Stretch& mine : stretches_of(copy)) {
    const auto same = [&](const Stretch& one) { return same_epoch(mine, one); };
    if (mine.first >= lsn && mine.start && std::none_of(theirs.begin(), theirs.end(), same))
      return true;
  }
  return false;
}

bool nothing_known(const Lineage& copy) {
  return copy.history.empty() && place_of(copy).lsn == 0 && !copy.was_primary;
}

uint64_t random_number() {
  uint64_t value = 0;
  if (getrandom(&value, sizeof value, 0) != sizeof value) abort();
  return value;
}

/** True: the copy was a primary, and nobody has given up since what it has of that. */
bool went_on(const Lineage& copy) {
  const auto own = [&](const EpochStart& entry) { return entry.primary == copy.node; };
  const auto alone = [&](const EpochStart& entry) { return own(entry) && entry.alone != 0; };
  // Given up, or already being brought back: it says so, and that it acknowledged nothing alone.
  if (copy.state == DiskState::outdated || copy.state == DiskState::inconsistent)
    return std::ranges::any_of(copy.history, alone);
  return copy.was_primary || std::ranges::any_of(copy.history, own);
}

/** False: it has records of an epoch that it was never told the beginning of. */
bool told_all(const Lineage& copy) {
  return place_of(copy).epoch <= (copy.history.empty() ? 0 : copy.history.back().epoch);
}

/** A copy without a history: new, made new, or in the middle of becoming the first copy. */
Rejoin of_new(const SourceMeans& means, const Lineage& target) {
  if (target.state == DiskState::inconsistent) return Rejoin::compare;
  // Content that is nobody's history may be more than it says, and what it is is not known.
  const bool both_empty =
      !target.marks_lost && means.ring_first.lsn == 0 && means.ring_first.chain == target.at.chain;
  return both_empty ? Rejoin::catch_up : Rejoin::first_copy;
}

}  // namespace

bool common_end(const Lineage& source, const Lineage& target, uint64_t& epoch, Lsn& lsn) {
  const std::vector<Stretch> ours = stretches_of(source);
  const std::vector<Stretch> theirs = stretches_of(target);
  for (auto mine = ours.rbegin(); mine != ours.rend(); ++mine) {
    for (const Stretch& other : theirs) {
      if (!same_epoch(*mine, other)) continue;
      epoch = mine->epoch;
      lsn = std::min(end_of(ours, epoch), end_of(theirs, epoch));
      // Both may have more of it than they can say.
      if (lsn == no_end) lsn = std::max(source.at.lsn, target.at.lsn);
      return true;
    }
  }
  return false;
}

bool went_alone_after(const Lineage& copy, Lsn lsn) {
  for (const Stretch& one : stretches_of(copy)) {
    if (one.alone && one.end > lsn) return true;
  }
  return false;
}

Decision decide(const Lineage& source, const SourceMeans& means, const Lineage& target,
                const Faults* faults) {
  Decision out;
  const bool resumes = means.resync != 0 && target.resync == means.resync;
  const bool in_ring = means.ring_first.lsn <= target.at.lsn && target.at.lsn <= source.at.lsn;
  const bool known = common_end(source, target, out.epoch, out.common);
  out.source_more = more_after(source, out.common);
  out.target_more = more_after(target, out.common);
  if (resumes) {
    // What is still dirty, and what has left the ring since, is all that it lacks.
    out.what = in_ring ? Rejoin::resume : Rejoin::dirty;
    return out;
  }
  if (nothing_known(target)) {
    out.what = of_new(means, target);
    return out;
  }
  if (!known) {
    out.what = Rejoin::unrelated;
    return out;
  }
  if (faults != nullptr && faults->source_by_mtime) {
    // A planted bug: the primary wrote last, so it is believed, whatever the other has.
    out.what = Rejoin::dirty;
    return out;
  }
  if (went_alone_after(target, out.common)) {
    out.what = went_alone_after(source, out.common) ? Rejoin::fork : Rejoin::behind;
    return out;
  }
  const bool more = target.was_primary || place_of(target).lsn > out.common;
  const bool covered =
      (means.dirty_whole && means.dirty_since <= out.common) || means.ring_first.lsn <= out.common;
  const bool unknown = target.state == DiskState::failed || target.marks_lost || !covered;
  if (more) {
    const bool newer = began_after(source, target, out.common) || source.at.lsn > out.common;
    out.what = !newer ? Rejoin::behind : unknown ? Rejoin::compare : Rejoin::roll_back;
    return out;
  }
  const bool whole = target.state == DiskState::in_sync || target.state == DiskState::outdated;
  out.what = unknown ? Rejoin::compare : whole && in_ring ? Rejoin::catch_up : Rejoin::dirty;
  return out;
}

Decision decide_distant(const Lineage& source, const SourceMeans& means, const Lineage& target,
                        const Faults* faults) {
  Decision out = decide(source, means, target, faults);
  if (out.what == Rejoin::resume || nothing_known(target)) return out;
  if (went_on(target)) {
    out.what = Rejoin::fork;
    return out;
  }
  const bool by_numbers = out.what == Rejoin::dirty || out.what == Rejoin::roll_back;
  const bool same_run = means.resync != 0 && target.resync == means.resync;
  if (out.what == Rejoin::fork || out.what == Rejoin::behind || out.what == Rejoin::unrelated ||
      (by_numbers && !same_run && !told_all(target))) {
    out.what = Rejoin::compare;
  }
  return out;
}

uint64_t random_chain() {
  return random_number() | 1;
}

Lsn random_beginning() {
  // Short enough for every reader of a status, whatever comes after it.
  return (random_number() >> 20) | (Lsn{1} << 40);
}

const char* name_of(Rejoin what) {
  switch (what) {
    case Rejoin::catch_up:
      return "catch_up";
    case Rejoin::resume:
      return "resume";
    case Rejoin::dirty:
      return "dirty";
    case Rejoin::roll_back:
      return "roll_back";
    case Rejoin::compare:
      return "compare";
    case Rejoin::first_copy:
      return "first_copy";
    case Rejoin::fork:
      return "fork";
    case Rejoin::behind:
      return "behind";
    case Rejoin::unrelated:
      return "unrelated";
  }
  return "unknown";
}

Lineage lineage_of(const SuperState& state, const Tail& at) {
  Lineage out;
  out.node = state.node;
  out.state = state.state;
  out.at = at;
  if (state.state == DiskState::inconsistent) out.base = state.base;
  out.history.assign(state.history, state.history + state.history_size);
  return out;
}

void add_epoch(SuperState& state, const EpochStart& start) {
  EpochStart* const begin = state.history;
  while (state.history_size > 0 && begin[state.history_size - 1].first > start.first) {
    state.history_size--;
  }
  EpochStart* end = begin + state.history_size;
  if (state.history_size == max_history) {
    EpochStart* pair = std::adjacent_find(
        begin, end, [](const EpochStart& a, const EpochStart& b) { return a.epoch == b.epoch; });
    if (pair != end) {
      pair->alone |= pair[1].alone;
      std::copy(pair + 2, end, pair + 1);
    } else {
      std::copy(begin + 1, end, begin);
    }
    state.history_size--;
  }
  state.history[state.history_size++] = start;
}

}  // namespace holdfast::replica
