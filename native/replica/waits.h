#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "replica/log.h"

/** Who waits for the peer, in the order of LSNs, and how long they waited. */
namespace holdfast::replica {

/** Far more than the kernel lets be under way (a request each). One that finds it full is told
 * ENOMEM, and counted. */
inline constexpr size_t max_waits = 65'536;

/** Of several that raise it at once, the highest LSN stays. */
inline void raise_to(std::atomic<Lsn>& value, Lsn lsn) {
  Lsn now = value.load();
  while (now < lsn && !value.compare_exchange_weak(now, lsn)) {
  }
}

/** Counts of durations, four buckets to a doubling: a quantile is right within 25 %. */
class Histogram {
 public:
  void add(int64_t ns);
  uint64_t count() const;
  /** The duration (ns) that `part` (0 to 1) of all were not above; 0 when there are none. */
  int64_t quantile(double part) const;
  void clear();

 private:
  static constexpr size_t buckets = 4 * 44;  // up to 2^44 ns, almost five hours
  std::array<std::atomic<uint64_t>, buckets> counts_{};
};

/** Durations of the last seconds. What is added while a second begins may be lost. Any thread. */
class RecentTimes {
 public:
  void add(int64_t now_ns, int64_t ns);
  /** Of the last whole second; 0: there were none. */
  int64_t quantile(double part, int64_t now_ns) const;

 private:
  static constexpr int64_t slots = 3;  // the present second, the last one, one to be cleared
  struct Slot {
    std::atomic<int64_t> second{-1};
    Histogram times;
  };
  std::array<Slot, slots> slots_;
};

class Waits {
 public:
  /** Adds one that waits for `lsn`; false: full. The caller holds `mutex`. */
  bool add(Lsn lsn, const Waiter& waiter, int64_t now_ns);
  /** Moves all that wait for no more than `lsn` to `out`, lowest LSN first; the caller holds it. */
  void take(Lsn lsn, int64_t now_ns, std::vector<Waiter>& out);
  size_t size() const { return heap_.size(); }
  const Histogram& times() const { return times_; }

 private:
  struct Entry {
    Lsn lsn;
    uint64_t order;
    int64_t since_ns;
    Waiter waiter;
  };
  static bool later(const Entry& a, const Entry& b) {
    return a.lsn != b.lsn ? a.lsn > b.lsn : a.order > b.order;
  }

  std::vector<Entry> heap_;
  uint64_t next_order_ = 0;
  Histogram times_;
};

}  // namespace holdfast::replica
