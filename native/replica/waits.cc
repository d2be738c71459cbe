#include "replica/waits.h"

#include <algorithm>
#include <bit>

#include "common/clock.h"

namespace holdfast::replica {

void Histogram::add(int64_t ns) {
  const auto value = static_cast<uint64_t>(std::max<int64_t>(ns, 4));
  const auto log = static_cast<size_t>(std::bit_width(value)) - 1;
  const size_t quarter = (value >> (log - 2)) & 3;
  const size_t bucket = std::min(4 * log + quarter, buckets - 1);
  counts_[bucket].fetch_add(1, std::memory_order_relaxed);
}

uint64_t Histogram::count() const {
  uint64_t all = 0;
  for (const auto& bucket : counts_) all += bucket.load(std::memory_order_relaxed);
  return all;
}

int64_t Histogram::quantile(double part) const {
  const uint64_t all = count();
  if (all == 0) return 0;
  const auto below = static_cast<uint64_t>(part * static_cast<double>(all - 1));
  uint64_t seen = 0;
  for (size_t bucket = 0; bucket < buckets; bucket++) {
    seen += counts_[bucket].load(std::memory_order_relaxed);
    // The bucket's upper end: (4 + quarter + 1) / 4 of its power of two.
    if (seen > below) return static_cast<int64_t>((bucket % 4 + 5) << (bucket / 4)) / 4;
  }
  return 0;
}

void Histogram::clear() {
  for (auto& bucket : counts_) bucket.store(0, std::memory_order_relaxed);
}

void RecentTimes::add(int64_t now_ns, int64_t ns) {
  const int64_t second = now_ns / ns_per_s;
  Slot& slot = slots_[static_cast<size_t>(second % slots)];
  int64_t was = slot.second.load(std::memory_order_relaxed);
  if (was != second && slot.second.compare_exchange_strong(was, second)) slot.times.clear();
  slot.times.add(ns);
}

int64_t RecentTimes::quantile(double part, int64_t now_ns) const {
  const int64_t second = now_ns / ns_per_s - 1;
  const Slot& slot = slots_[static_cast<size_t>((second + slots) % slots)];
  return slot.second.load() == second ? slot.times.quantile(part) : 0;
}

bool Waits::add(Lsn lsn, const Waiter& waiter, int64_t now_ns) {
  if (heap_.size() >= max_waits) return false;
  heap_.push_back({lsn, next_order_++, now_ns, waiter});
  std::push_heap(heap_.begin(), heap_.end(), later);
  return true;
}

void Waits::take(Lsn lsn, int64_t now_ns, std::vector<Waiter>& out) {
  while (!heap_.empty() && heap_.front().lsn <= lsn) {
    out.push_back(heap_.front().waiter);
    times_.add(now_ns - heap_.front().since_ns);
    std::pop_heap(heap_.begin(), heap_.end(), later);
    heap_.pop_back();
  }
}

}  // namespace holdfast::replica
