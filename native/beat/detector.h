#pragma once
#include <algorithm>
#include <cstdint>

#include "common/clock.h"

namespace holdfast::beat {

/**
 * Failure detector of one peer on one network: NFD-E of Chen, Toueg and Aguilera ("On the Quality
 * of Service of Failure Detectors", IEEE TC 51(5), 2002) with the two windows of Tomsic et al.
 * (IPDPS 2015): the next heartbeat is expected at
 *
 *   max(mean over the long window of (arrival - sent) + the sender's promise, arrival + heartbeat)
 *
 * The long window (1000) keeps one late arrival from moving the anchor, the short one (1) follows
 * a network that became slower. Where the papers count heartbeats from a fixed interval, this one
 * takes the sender's own stamps (`sent`, `next`), so that heartbeats out of schedule, a sender's
 * lateness and a change of the interval need no special case. The two clocks need not agree.
 *
 * The freshness point is expectation + (suspect - heartbeat). By the short window it is never
 * earlier than arrival + suspect, whatever the sender promises: leases rely on this.
 */
class Detector {
 public:
  static constexpr uint32_t window = 1000;
  // A sender may promise its next heartbeat this far ahead; more is cut.
  static constexpr int64_t promise_max_ns = 2 * ns_per_s;

  void reset() { *this = Detector(); }

  /** One heartbeat: `arrival` on the own clock, `sent` and `next` on the sender's; all ns. */
  void heard(int64_t arrival, int64_t sent, int64_t next, int64_t heartbeat, int64_t suspect) {
    const int64_t offset = arrival - sent;
    const int64_t relative = offset - base_;
    // Clocks that drift apart leave the range of the samples after hours: start the window again.
    if (count_ == 0 || relative > sample_max || relative < -sample_max) restart(offset);
    add(static_cast<int32_t>(offset - base_));
    const int64_t promise = std::clamp(next - sent, int64_t{0}, promise_max_ns);
    const int64_t expected_long = base_ + sum_ / static_cast<int64_t>(count_) + sent + promise;
    const int64_t expected = std::max(expected_long, arrival + heartbeat);
    freshness_ = expected + suspect - heartbeat;
    const int64_t deviation = std::abs(offset - base_ - sum_ / static_cast<int64_t>(count_));
    jitter_ += (deviation - jitter_) / 16;
    last_ = arrival;
  }

  /** The peer is silent on this network from here on, unless heard before. 0: never heard. */
  int64_t freshness() const { return freshness_; }
  int64_t last_arrival() const { return last_; }
  /** Smoothed deviation of the one-way delay from its mean, ns. */
  int64_t jitter() const { return jitter_; }

 private:
  static constexpr int64_t sample_max = ns_per_s;

  void restart(int64_t offset) {
    base_ = offset;
    sum_ = 0;
    count_ = 0;
    next_ = 0;
  }

  void add(int32_t sample) {
    if (count_ == window) {
      sum_ -= samples_[next_];
    } else {
      count_++;
    }
    samples_[next_] = sample;
    sum_ += sample;
    next_ = (next_ + 1) % window;
  }

  int64_t base_ = 0;
  int64_t sum_ = 0;
  int64_t freshness_ = 0;
  int64_t last_ = 0;
  int64_t jitter_ = 0;
  uint32_t count_ = 0;
  uint32_t next_ = 0;
  int32_t samples_[window] = {};
};

}  // namespace holdfast::beat
