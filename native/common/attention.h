#pragma once
#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <cstdint>

#include "common/clock.h"

namespace holdfast {

/**
 * Whether to stay awake for what comes next. To wake a thread costs 5 to 50 us, most of it for a
 * processor that has gone to sleep (a virtual one has to be started by its host). When things come
 * more often than `often`, as under a stream of fsyncs, a thread that looks for the next one
 * instead of sleeping saves that time from each. It gives way to whoever wants the processor, and
 * sleeps as usual when nothing came for twice the usual time, or when others had the processor for
 * so long that it is busy: then nobody has to be woken from far.
 */
class Attention {
 public:
  static constexpr int64_t often = 400 * ns_per_us;
  static constexpr int64_t busy = 100 * ns_per_us;

  /** Something came at `now`. */
  void came(int64_t now) {
    const int64_t gap = std::min(now - last_, 16 * often);
    usual_ += (gap - usual_) / 8;
    last_ = now;
  }

  /** True while staying awake is worth it. */
  bool awake() const { return usual_ < often; }

  /** poll(2) of `count` descriptors without sleeping, for a moment; 0: nothing came. */
  int watch(pollfd* descriptors, nfds_t count) const {
    if (!awake()) return 0;
    int64_t now = boot_ns();
    const int64_t end = now + 2 * usual_;
    for (;;) {
      const int ready = poll(descriptors, count, 0);
      if (ready != 0) return ready;
      sched_yield();
      const int64_t before = now;
      now = boot_ns();
      if (now >= end || now - before >= busy) return 0;
    }
  }

 private:
  int64_t last_ = 0;
  int64_t usual_ = 16 * often;  // between two, a moving average
};

}  // namespace holdfast
