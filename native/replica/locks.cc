#include "replica/locks.h"

#include <algorithm>

namespace holdfast::replica {

size_t Locks::stripe_of(FileId id) {
  return static_cast<size_t>((id * 0x9e3779b97f4a7c15ULL) >> 54) % stripes;
}

Locks::Hold::Hold(Locks& locks, FileId a, FileId b, FileId c, FileId d) : locks_(locks) {
  for (const FileId id : {a, b, c, d}) {
    if (id != 0) held_[count_++] = stripe_of(id);
  }
  const auto begin = held_.begin();
  std::sort(begin, begin + static_cast<ptrdiff_t>(count_));
  count_ = static_cast<size_t>(std::unique(begin, begin + static_cast<ptrdiff_t>(count_)) - begin);
  for (size_t i = 0; i < count_; i++) locks_.stripes_[held_[i]].mutex.lock();
}

void Locks::Hold::unlock() {
  while (count_ > 0) locks_.stripes_[held_[--count_]].mutex.unlock();
}

Locks::State& Locks::state(Stripe& stripe, FileId id) {
  const auto found = stripe.states.find(id);
  if (found != stripe.states.end()) return found->second;
  if (stripe.states.size() >= states_max) {
    // Any may go, for what is not known counts as changed; but that a sync failed stays known.
    for (auto it = stripe.states.begin(); it != stripe.states.end(); ++it) {
      if (it->second.failed) continue;
      stripe.states.erase(it);
      break;
    }
  }
  State& fresh = stripe.states[id];
  fresh.changes = ++stripe.changes;
  return fresh;
}

void Locks::changed(FileId id, Lsn lsn) {
  Stripe& stripe = stripes_[stripe_of(id)];
  State& s = state(stripe, id);
  s.changes = ++stripe.changes;
  s.lsn = std::max(s.lsn, lsn);
}

uint64_t Locks::changes(FileId id) {
  return state(stripes_[stripe_of(id)], id).changes;
}

void Locks::forget(FileId id) {
  stripes_[stripe_of(id)].states.erase(id);
}

SyncPoint Locks::sync_point(FileId id) {
  Stripe& stripe = stripes_[stripe_of(id)];
  const std::lock_guard lock(stripe.mutex);
  const auto found = stripe.states.find(id);
  SyncPoint point;
  if (found == stripe.states.end()) {
    // Known from now on: what comes later is counted from here.
    point.changes = state(stripe, id).changes;
    return point;
  }
  const State& s = found->second;
  point.known = true;
  point.failed = s.failed;
  point.lsn = s.lsn;
  point.changes = s.changes;
  point.clean_data = s.synced_data >= s.changes;
  point.clean_all = s.synced_all >= s.changes;
  return point;
}

void Locks::synced(FileId id, const SyncPoint& point, bool data_only) {
  Stripe& stripe = stripes_[stripe_of(id)];
  const std::lock_guard lock(stripe.mutex);
  const auto found = stripe.states.find(id);
  if (found == stripe.states.end()) return;
  State& s = found->second;
  s.synced_data = std::max(s.synced_data, point.changes);
  if (!data_only) s.synced_all = std::max(s.synced_all, point.changes);
}

void Locks::failed(FileId id) {
  Stripe& stripe = stripes_[stripe_of(id)];
  const std::lock_guard lock(stripe.mutex);
  state(stripe, id).failed = true;
}

}  // namespace holdfast::replica
