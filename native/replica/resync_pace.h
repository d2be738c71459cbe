#pragma once
#include <array>
#include <cstdint>

#include "replica/resync.h"

/** How fast a resync goes. Pure functions and a state without a clock: the caller says when. */
namespace holdfast::replica {

struct PaceInput {
  int64_t pause_ns = 0;     // between two pieces, at present
  int64_t p99_ns = 0;       // of the application's changes in the last second; 0: none
  int64_t baseline_ns = 0;  // the same without the resync; 0: not known
  double factor = 1.5;      // it may grow by so much
  double floor = 0.05;      // this share of what the link carries is always used
  uint64_t carries = 0;     // bytes per second that the link carries; 0: not known
  uint64_t piece = 0;       // bytes of one
};

/**
 * The pause between two pieces from now on: twice as long when the application's changes take too
 * long, half as long when they do not, none when there are none.
 */
int64_t next_pause_ns(const PaceInput& in);

/** Bytes per second over the last three seconds. */
class RateMeter {
 public:
  void add(int64_t now_ns, uint64_t bytes);
  uint64_t rate(int64_t now_ns);

 private:
  static constexpr int64_t slot_ns = 250'000'000;
  static constexpr size_t slots = 12;
  void move_to(int64_t now_ns);

  std::array<uint64_t, slots> bytes_{};
  int64_t slot_ = 0;  // the one that counts now
  int64_t first_ns_ = -1;
};

class Pace {
 public:
  /** `p99_ns`: before anything is sent, so without the resync. */
  Pace(const ResyncOptions& options, int64_t now_ns, int64_t p99_ns);

  /** A piece was appended. */
  void sent(int64_t now_ns, uint64_t bytes);
  /** When the next piece may go; often asked. */
  int64_t due_ns(int64_t now_ns, int64_t p99_ns);
  uint64_t rate(int64_t now_ns) { return meter_.rate(now_ns); }

 private:
  void tick(int64_t now_ns, int64_t p99_ns);

  const ResyncOptions options_;
  RateMeter meter_;
  int64_t baseline_ns_;
  int64_t measured_ns_;         // when the baseline was
  int64_t quiet_until_ns_ = 0;  // nothing is sent, so that it can be measured; 0: no
  int64_t tick_ns_ = 0;
  int64_t pause_ns_ = 0;
  int64_t due_ns_ = 0;     // by the pause
  int64_t budget_ns_ = 0;  // by bytes_per_second
  uint64_t carries_ = 0;
};

}  // namespace holdfast::replica
