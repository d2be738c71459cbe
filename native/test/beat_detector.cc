#include <doctest/doctest.h>

#include <random>

#include "beat/detector.h"

using namespace holdfast;
using namespace holdfast::beat;

namespace {

constexpr int64_t ms = ns_per_ms;
constexpr int64_t heartbeat = 50 * ms;
constexpr int64_t suspect = 200 * ms;
// The sender's clock has nothing to do with the receiver's.
constexpr int64_t other_clock = 123456 * ms;

/** One heartbeat sent on schedule at `at` that took `delay`. */
void feed(Detector& detector, int64_t at, int64_t delay) {
  detector.heard(at + delay, at + other_clock, at + other_clock + heartbeat, heartbeat, suspect);
}

}  // namespace

TEST_CASE("detector: without jitter, silence is suspect exactly `suspect` after the last arrival") {
  Detector detector;
  CHECK(detector.freshness() == 0);
  int64_t at = 1000 * ms;
  for (int i = 0; i < 3000; i++, at += heartbeat) feed(detector, at, ms);
  CHECK(detector.freshness() == detector.last_arrival() + suspect);
  CHECK(detector.jitter() == 0);
}

TEST_CASE("detector: one late arrival moves the point by itself only, an early one not at all") {
  Detector detector;
  int64_t at = 0;
  for (int i = 0; i < 2000; i++, at += heartbeat) feed(detector, at, 5 * ms);
  feed(detector, at, 45 * ms);
  CHECK(detector.freshness() == at + 45 * ms + suspect);
  at += heartbeat;
  feed(detector, at, 5 * ms);
  // Back on the anchor (the mean moved by 40 ms / 1000).
  CHECK(detector.freshness() >= at + 5 * ms + suspect);
  CHECK(detector.freshness() <= at + 5 * ms + suspect + ms / 10);
  at += heartbeat;
  feed(detector, at, 0);
  CHECK(detector.freshness() >= at + 5 * ms + suspect - ms / 10);
}

TEST_CASE("detector: freshness is never earlier than arrival + suspect") {
  std::mt19937_64 random(7);
  Detector detector;
  int64_t at = 0;
  for (int i = 0; i < 20000; i++) {
    const int64_t delay = static_cast<int64_t>(random() % static_cast<uint64_t>(40 * ms));
    const int64_t promise =
        static_cast<int64_t>(random() % static_cast<uint64_t>(100 * ms)) - 20 * ms;
    detector.heard(at + delay, at, at + promise, heartbeat, suspect);
    REQUIRE(detector.freshness() >= at + delay + suspect);
    REQUIRE(detector.freshness() <= at + delay + suspect + 120 * ms);
    at += 40 * ms + static_cast<int64_t>(random() % static_cast<uint64_t>(10 * ms));
  }
}

TEST_CASE("detector: a sender with a longer interval is expected when it says") {
  Detector detector;
  int64_t at = 0;
  for (int i = 0; i < 100; i++, at += 400 * ms) {
    detector.heard(at + ms, at, at + 400 * ms, heartbeat, suspect);
  }
  CHECK(detector.freshness() == detector.last_arrival() + 400 * ms + suspect - heartbeat);
  // But not for ever.
  detector.heard(at + ms, at, at + 3600 * ns_per_s, heartbeat, suspect);
  CHECK(detector.freshness() == at + ms + Detector::promise_max_ns + suspect - heartbeat);
}

TEST_CASE("detector: heartbeats out of schedule do not move the anchor") {
  Detector detector;
  int64_t at = 0;
  for (int i = 0; i < 1500; i++, at += heartbeat) {
    feed(detector, at, ms);
    // An announcement half way, with the promise of the regular one.
    detector.heard(at + 25 * ms + ms, at + 25 * ms + other_clock, at + heartbeat + other_clock,
                   heartbeat, suspect);
  }
  feed(detector, at, ms);
  CHECK(detector.freshness() == at + ms + suspect);
}

TEST_CASE("detector: clocks that drift apart for hours keep the point within a few ms") {
  struct Drift {
    int64_t divisor;  // the sender's clock gains at / divisor
    int64_t late_max;
  };
  // Hours of drift: the window must start again several times. A sender whose clock is fast makes
  // the mean lag behind, by half a window of drift.
  for (const Drift& drift : {Drift{-50, ms / 1000}, Drift{10000, 3 * ms}, Drift{-10000, ms}}) {
    Detector detector;
    int64_t at = 0;
    for (int i = 0; i < 500000; i++, at += heartbeat) {
      const int64_t sent = at + at / drift.divisor;
      detector.heard(at + ms, sent, sent + heartbeat, heartbeat, suspect);
      REQUIRE(detector.freshness() >= at + ms + suspect);
      REQUIRE(detector.freshness() <= at + ms + suspect + drift.late_max);
    }
  }
}

TEST_CASE("detector: 30 % loss at 20 heartbeats per second, mean detection close to suspect") {
  std::mt19937_64 random(3);
  Detector detector;
  int64_t at = 0, extra = 0;
  int count = 0;
  for (int i = 0; i < 20000; i++, at += heartbeat) {
    if (random() % 10 < 3) continue;
    const int64_t delay = static_cast<int64_t>(random() % static_cast<uint64_t>(2 * ms));
    feed(detector, at, delay);
    extra += detector.freshness() - (at + delay) - suspect;
    count++;
  }
  CHECK(extra / count < ms);
}
