#include <doctest/doctest.h>

#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "replica/ring.h"
#include "replica_memory.h"

using namespace holdfast::replica;
using holdfast::replica::test::Memory;

namespace {

Lsn add(Ring& ring, std::span<const uint8_t> bytes, uint64_t epoch = 1) {
  const iovec part{const_cast<uint8_t*>(bytes.data()), bytes.size()};
  return ring.append(Kind::check, 0, 1, {&part, 1}, epoch);
}

/** All records from `after` on, each checked to follow. */
std::vector<RecordHead> read_all(const Ring& ring, Tail after) {
  std::vector<RecordHead> out;
  uint64_t cursor = 0;
  REQUIRE(ring.find(after, cursor));
  for (;;) {
    Lsn end = 0;
    auto bytes = ring.next(cursor, 64 * 1024, end);
    if (bytes.empty()) break;
    while (!bytes.empty()) {
      Record record;
      REQUIRE(parse_record(bytes, record) == ParseStatus::ok);
      REQUIRE(record.kind != Kind::pad);
      REQUIRE(follows(after, record.head));
      after = tail_after(record.head);
      out.push_back(record.head);
      bytes = bytes.subspan(record.head.size);
    }
    CHECK(end == after.lsn);
  }
  return out;
}

}  // namespace

TEST_CASE("ring: a fresh one is empty after nothing, and gives LSNs from 1") {
  Memory memory(min_ring);
  Ring ring(memory.shared(), memory.arena());
  CHECK(ring.intact());
  CHECK(ring.last().lsn == 0);
  CHECK(ring.used() == 0);
  const uint8_t bytes[100] = {7};
  REQUIRE(ring.reserve(record_size(100)));
  CHECK(add(ring, bytes) == 1);
  CHECK(read_all(ring, Tail{}).size() == 1);
  uint64_t cursor = 0;
  CHECK(ring.find(ring.last(), cursor));
  Tail other = ring.last();
  other.chain++;
  CHECK_FALSE(ring.find(other, cursor));
  CHECK_FALSE(ring.find({0, 0, 5}, cursor));
  CHECK_FALSE(ring.find({2, 1, 5}, cursor));
}

TEST_CASE("ring: a reservation that was granted is always enough, over many laps") {
  Memory memory(min_ring);
  Ring ring(memory.shared(), memory.arena());
  std::mt19937_64 random(20261);
  std::vector<uint8_t> bytes(max_record, 0x5a);
  std::deque<size_t> promised;  // payload sizes
  uint64_t refused = 0;
  Lsn freed = 0;
  for (int step = 0; step < 60'000; step++) {
    const auto what = random() % 10;
    if (what < 4) {
      const bool large = random() % 64 == 0;
      const size_t most = max_record - sizeof(RecordHead) - 8;
      const size_t size = 1 + random() % (large ? most : 5000);
      if (ring.reserve(record_size(size))) {
        promised.push_back(size);
      } else {
        refused++;
      }
    } else if (what < 8 && !promised.empty()) {
      const size_t at = random() % promised.size();
      const size_t size = promised[at];
      promised.erase(promised.begin() + static_cast<ptrdiff_t>(at));
      if (random() % 20 == 0) {
        ring.release(record_size(size));
      } else {
        add(ring, std::span(bytes).first(size));
        REQUIRE(ring.used() <= ring.size());
      }
    } else if (what == 8 && ring.last().lsn > freed) {
      freed += 1 + random() % (ring.last().lsn - freed);
      ring.free_to(freed);
    }
    if (step % 500 == 0) {
      const Tail before = ring.before_first();
      CHECK(before.lsn == freed);
      CHECK(read_all(ring, before).size() == ring.last().lsn - freed);
    }
  }
  CHECK(refused > 0);
  CHECK(refused == ring.turned_away());
}

TEST_CASE("ring: another process's worth of it continues where it was") {
  Memory memory(min_ring);
  const std::vector<uint8_t> bytes(3000, 1);
  Tail last;
  Tail middle;
  {
    Ring ring(memory.shared(), memory.arena());
    for (int i = 0; i < 1000; i++) {
      REQUIRE(ring.reserve(record_size(bytes.size())));
      add(ring, bytes, 4);
      if (i == 900) middle = ring.last();
      if (i >= 500) ring.free_to(static_cast<Lsn>(i - 400));
    }
    REQUIRE(ring.reserve(record_size(bytes.size())));  // a promise dies with its process
    last = ring.last();
  }
  // As when the worker was killed between the record and the head: the fields say more than is
  // there.
  memory.shared()->ring.head_lsn += 1;
  memory.shared()->ring.head_chain = 99;
  // And between the tail's fields and the tail.
  memory.shared()->ring.tail_lsn += 7;
  Ring ring(memory.shared(), memory.arena());
  REQUIRE(ring.intact());
  CHECK(ring.last().lsn == last.lsn);
  CHECK(ring.last().chain == last.chain);
  CHECK(ring.before_first().lsn == 599);
  CHECK(read_all(ring, middle).size() == last.lsn - middle.lsn);
  REQUIRE(ring.reserve(record_size(bytes.size())));
  CHECK(add(ring, bytes, 4) == last.lsn + 1);
  CHECK(read_all(ring, last).size() == 1);

  ring.free_to(last.lsn + 1);
  CHECK(ring.used() == 0);
  Ring again(memory.shared(), memory.arena());
  CHECK(again.intact());
  CHECK(again.last().lsn == last.lsn + 1);
  CHECK(again.before_first().lsn == last.lsn + 1);
}

TEST_CASE("ring: memory that holds no history is not taken for one") {
  const std::vector<uint8_t> bytes(3000, 1);
  const auto damaged = [&](auto damage) {
    Memory memory(min_ring);
    {
      Ring ring(memory.shared(), memory.arena());
      for (int i = 0; i < 10; i++) {
        REQUIRE(ring.reserve(record_size(bytes.size())));
        add(ring, bytes);
      }
    }
    damage(memory);
    Ring ring(memory.shared(), memory.arena());
    if (ring.intact()) return false;
    ring.reset({40, 2, 3});
    return ring.intact() && ring.used() == 0 && ring.last().lsn == 40;
  };
  const size_t size = record_size(bytes.size());
  CHECK(damaged([](Memory& memory) { memory.shared()->ring.head += 8; }));
  CHECK(damaged([](Memory& memory) { memory.shared()->ring.head += 3; }));
  CHECK(damaged([](Memory& memory) { memory.shared()->ring.tail = 1ull << 40; }));
  CHECK(damaged([&](Memory& memory) { memory.arena()[3 * size] ^= 0x80; }));
  CHECK(damaged([&](Memory& memory) { memory.arena()[3 * size + 8] ^= 1; }));
}

TEST_CASE("ring: a primary that is alone drops the oldest records") {
  Memory memory(min_ring);
  Ring ring(memory.shared(), memory.arena());
  const std::vector<uint8_t> bytes(100'000, 1);
  const size_t size = record_size(bytes.size());
  while (ring.reserve(size)) add(ring, bytes);
  const Lsn full = ring.last().lsn;
  for (int i = 0; i < 200; i++) {
    REQUIRE(ring.reserve(size, true));
    add(ring, bytes);
  }
  CHECK(ring.last().lsn == full + 200);
  CHECK(ring.before_first().lsn > 100);
  CHECK(read_all(ring, ring.before_first()).size() == ring.last().lsn - ring.before_first().lsn);
}

TEST_CASE("ring: starting a new history leaves nothing of the old") {
  Memory memory(min_ring);
  Ring ring(memory.shared(), memory.arena());
  const uint8_t bytes[64] = {};
  REQUIRE(ring.reserve(record_size(64)));
  add(ring, bytes);
  ring.reset({1000, 7, 12345});
  CHECK(ring.last().lsn == 1000);
  uint64_t cursor = 0;
  CHECK_FALSE(ring.find(Tail{}, cursor));
  REQUIRE(ring.find({1000, 7, 12345}, cursor));
  REQUIRE(ring.reserve(record_size(64)));
  CHECK(add(ring, bytes, 7) == 1001);
  CHECK(read_all(ring, {1000, 7, 12345}).size() == 1);
}

TEST_CASE("ring: what is forgotten goes step by step, and a gap is nobody's last record") {
  Memory memory(min_ring);
  Ring ring(memory.shared(), memory.arena());
  std::vector<Lsn> gone;
  ring.set_dropped([&gone](const Record& record) { gone.push_back(record.head.lsn); });
  const std::vector<uint8_t> bytes(1000, 7);
  for (int i = 0; i < 10; i++) {
    REQUIRE(ring.reserve(record_size(bytes.size())));
    add(ring, bytes);
  }
  const Tail last = ring.last();
  std::vector<Lsn> seen;
  const auto see = [&seen](const Record& record) { seen.push_back(record.head.lsn); };
  uint64_t cursor = 0;
  CHECK(ring.for_some(cursor, 4, see));
  CHECK(seen == std::vector<Lsn>{1, 2, 3, 4});
  ring.keep(true);
  CHECK(ring.drop(6));
  CHECK(gone == std::vector<Lsn>{1, 2, 3, 4, 5, 6});
  CHECK_FALSE(ring.for_some(cursor, 100, see));
  CHECK(seen == std::vector<Lsn>{1, 2, 3, 4, 7, 8, 9, 10});
  CHECK(ring.before_first().lsn == 6);
  CHECK(ring.drop(3));
  std::vector<Lsn> rest;
  const Tail end =
      ring.leave_gap(99, [&rest](const Record& record) { rest.push_back(record.head.lsn); });
  CHECK(rest == std::vector<Lsn>{10});
  CHECK(end.lsn == 11);
  CHECK(end.chain == 99);
  CHECK(ring.used() == 0);
  CHECK_FALSE(ring.find(last, cursor));
  CHECK(ring.find(end, cursor));
  REQUIRE(ring.reserve(record_size(bytes.size())));
  CHECK(add(ring, bytes) == 12);
  CHECK(read_all(ring, end).size() == 1);
  CHECK_FALSE(ring.find(last, cursor));
}
