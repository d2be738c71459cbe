#include <doctest/doctest.h>

#include "replica/lag.h"

using namespace holdfast::replica;

namespace {

constexpr int64_t ms = 1'000'000;

}  // namespace

TEST_CASE("lag: a copy that has everything has none, and the oldest that it lacks counts") {
  Lag lag;
  CHECK(lag.since_ns(0) == 0);
  lag.add(10, 100, 1000 * ms);
  lag.add(11, 101, 2000 * ms);
  lag.add(12, 102, 3000 * ms);
  CHECK(lag.since_ns(9) == 1000 * ms);
  CHECK(lag.since_ns(10) == 2000 * ms);
  CHECK(lag.since_ns(11) == 3000 * ms);
  CHECK(lag.since_ns(12) == 0);
  CHECK(lag.since_ns(20) == 0);
}

TEST_CASE("lag: of changes that come fast the first one counts") {
  Lag lag;
  lag.add(10, 100, 1000 * ms);
  lag.add(11, 101, 1020 * ms);
  lag.add(12, 102, 1049 * ms);
  lag.add(13, 103, 1050 * ms);
  // 11 and 12 are not told from 10.
  CHECK(lag.since_ns(10) == 1000 * ms);
  CHECK(lag.since_ns(11) == 1000 * ms);
  CHECK(lag.since_ns(12) == 1050 * ms);
  CHECK(lag.main_of(9) == 0);
  CHECK(lag.main_of(12) == 100);
  CHECK(lag.main_of(13) == 103);
}

TEST_CASE("lag: where both streams are without a change is known too") {
  Lag lag;
  lag.add(10, 100, 1000 * ms);
  lag.add(11, 101, 1001 * ms);
  lag.reached(11, 150, 5000 * ms);
  CHECK(lag.main_of(10) == 100);
  CHECK(lag.main_of(11) == 150);
  CHECK(lag.since_ns(10) == 1001 * ms);
  lag.reached(20, 160, 6000 * ms);
  CHECK(lag.main_of(19) == 150);
  CHECK(lag.main_of(20) == 160);
  // Those are no changes.
  CHECK(lag.since_ns(11) == 0);
}

TEST_CASE("lag: what the copy had long ago is forgotten, and what it has is not") {
  Lag lag;
  for (Lsn lsn = 1; lsn <= 100; lsn++) lag.add(lsn, lsn + 1000, int64_t(lsn) * 1000 * ms);
  lag.had(50);
  CHECK(lag.main_of(50) == 1050);
  CHECK(lag.main_of(75) == 1075);
  CHECK(lag.since_ns(50) == 51'000 * ms);
}

TEST_CASE("lag: what it keeps is bounded, and never says that a copy has more than it has") {
  Lag lag;
  constexpr Lsn many = 50'000;
  for (Lsn lsn = 1; lsn <= many; lsn++) lag.add(lsn, lsn, int64_t(lsn) * 50 * ms);
  // An hour of changes, in at most a thousand pieces.
  for (Lsn lsn = 1; lsn <= many; lsn += 997) {
    const Lsn main = lag.main_of(lsn);
    CHECK(main <= lsn);
    CHECK(lsn - main <= many / 100);
    const int64_t since = lag.since_ns(lsn);
    CHECK(since <= int64_t(lsn + 1) * 50 * ms);
  }
  lag.reached(many, many, int64_t(many) * 50 * ms);
  CHECK(lag.main_of(many) == many);
}
