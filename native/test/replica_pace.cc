// How fast a resync goes.

#include <doctest/doctest.h>

#include <algorithm>

#include "replica/resync_pace.h"

using namespace holdfast::replica;

namespace {

constexpr int64_t ms = 1'000'000;
constexpr int64_t second = 1000 * ms;
constexpr uint64_t piece = 256u << 10;

PaceInput input(int64_t pause, int64_t p99, int64_t baseline) {
  PaceInput in;
  in.pause_ns = pause;
  in.p99_ns = p99;
  in.baseline_ns = baseline;
  in.piece = piece;
  return in;
}

/** Sends as fast as the pace lets it, from `from` to `to`; bytes sent. `p99` answers for a pause.
 */
template <typename P99>
uint64_t drive(Pace& pace, int64_t from, int64_t to, int64_t cost, P99 p99) {
  uint64_t bytes = 0;
  for (int64_t now = from; now < to;) {
    const int64_t due = pace.due_ns(now, p99(now));
    if (due > now) {
      now = std::min(due, now + 10 * ms);
      continue;
    }
    bytes += piece;
    now += cost;
    pace.sent(now, piece);
  }
  return bytes;
}

}  // namespace

TEST_CASE("pace: longer while the application is slow, shorter when it is not, none without it") {
  CHECK(next_pause_ns(input(0, 0, ms)) == 0);
  CHECK(next_pause_ns(input(40 * ms, 0, ms)) == 0);
  CHECK(next_pause_ns(input(0, ms, ms)) == 0);
  CHECK(next_pause_ns(input(0, ms * 3 / 2, ms)) == 0);  // 1.5 times is allowed
  const int64_t first = next_pause_ns(input(0, 2 * ms, ms));
  CHECK(first > 0);
  CHECK(next_pause_ns(input(first, 2 * ms, ms)) == 2 * first);
  CHECK(next_pause_ns(input(4 * ms, ms, ms)) == 2 * ms);
  CHECK(next_pause_ns(input(first, ms, ms)) == 0);
  // What is usual is not known: nothing to go by.
  CHECK(next_pause_ns(input(3 * ms, 9 * ms, 0)) == 3 * ms);
}

TEST_CASE("pace: a share of what the link carries is always used") {
  PaceInput in = input(10 * second, 100 * ms, ms);
  in.carries = 100u << 20;
  // 5 % of 100 MiB/s are 20 pieces of 256 KiB a second.
  CHECK(next_pause_ns(in) == 50 * ms);
  in.carries = 1u << 20;
  CHECK(next_pause_ns(in) == second);
  in.carries = 0;
  CHECK(next_pause_ns(in) <= 50 * ms);
  in.carries = 100u << 20;
  in.floor = 1;
  CHECK(next_pause_ns(in) == 2'500'000);
}

TEST_CASE("pace: the rate is that of the last three seconds") {
  RateMeter meter;
  CHECK(meter.rate(5 * second) == 0);
  for (int n = 0; n < 10; n++) meter.add(5 * second + n * 100 * ms, 1000);
  CHECK(meter.rate(6 * second - 1) == 10'000);
  CHECK(meter.rate(8 * second - 1) > 3000);
  CHECK(meter.rate(8 * second - 1) < 3500);
  CHECK(meter.rate(60 * second) == 0);
  // The clock may stand.
  meter.add(60 * second, 300);
  meter.add(60 * second, 300);
  CHECK(meter.rate(60 * second) > 199);
  CHECK(meter.rate(60 * second) < 220);
}

TEST_CASE("pace: no more than the bandwidth that was configured") {
  ResyncOptions options;
  options.bytes_per_second = 4u << 20;
  Pace pace(options, 0, 0);
  const uint64_t sent = drive(pace, 0, 10 * second, ms, [](int64_t) { return int64_t{0}; });
  CHECK(sent <= (40u << 20) + 2 * piece);
  CHECK(sent >= (39u << 20));
  CHECK(pace.rate(10 * second) <= (4u << 20) + piece);
}

TEST_CASE("pace: nothing is held up while the application does nothing") {
  Pace pace(ResyncOptions(), 0, 0);
  CHECK(drive(pace, 0, 5 * second, ms, [](int64_t) { return int64_t{0}; }) == 5000 * piece);
}

TEST_CASE("pace: an application that suffers slows it down to the floor, and no further") {
  Pace pace(ResyncOptions(), 0, ms);
  const auto suffers = [](int64_t) { return 10 * ms; };
  const uint64_t fast = drive(pace, 0, second / 4, ms, suffers);
  const uint64_t first = drive(pace, second / 4, 10 * second, ms, suffers);
  const uint64_t slow = drive(pace, 10 * second, 20 * second, ms, suffers);
  CHECK(fast >= 200 * piece);
  CHECK(slow < first);
  // 1000 pieces a second are what the link carries: 50 a second are always sent.
  CHECK(slow <= 520 * piece);
  CHECK(slow >= 450 * piece);
  // It is well again: back to all that there is.
  const auto well = [](int64_t) { return ms; };
  drive(pace, 20 * second, 30 * second, ms, well);
  CHECK(drive(pace, 30 * second, 31 * second, ms, well) == 1000 * piece);
}

TEST_CASE("pace: what is usual is measured while nothing is sent") {
  // The application begins in the middle: 2 ms alone, 2.5 ms beside the resync.
  Pace pace(ResyncOptions(), 0, 0);
  drive(pace, 0, 5 * second, ms, [](int64_t) { return int64_t{0}; });
  int64_t last_sent = 5 * second;
  int64_t quiet = 0;
  const auto begins = [&](int64_t now) { return now - last_sent > second ? 2 * ms : ms * 5 / 2; };
  uint64_t bytes = 0;
  for (int64_t now = 5 * second; now < 20 * second;) {
    const int64_t due = pace.due_ns(now, begins(now));
    if (due > now) {
      now += 10 * ms;
      continue;
    }
    quiet = std::max(quiet, now - last_sent);
    bytes += piece;
    now += ms;
    last_sent = now;
    pace.sent(now, piece);
  }
  // Silent once for longer than the second that is measured; then 2.5 ms are within 1.5 x 2 ms.
  CHECK(quiet > second);
  CHECK(quiet < 2 * second);
  CHECK(bytes > 13'000 * piece);
}

TEST_CASE("pace: a load that changed is measured again") {
  Pace pace(ResyncOptions(), 0, ms);
  // The application does something else now, which takes 5 ms whatever the resync does.
  const auto other = [](int64_t) { return 5 * ms; };
  drive(pace, 0, 40 * second, ms, other);
  CHECK(drive(pace, 40 * second, 41 * second, ms, other) == 1000 * piece);
}
