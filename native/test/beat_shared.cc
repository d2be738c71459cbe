#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <thread>

#include "beat/shm.h"
#include "common/seqlock.h"
#include "common/spsc_ring.h"
#include "common/triple_buffer.h"

using namespace holdfast;

namespace {

struct Item {
  uint64_t value;
  uint64_t check;
};
using Ring = SpscRing<Item, 1024>;

constexpr uint64_t ring_items = 2'000'000;

}  // namespace

TEST_CASE("ring: full, lost and cleared") {
  auto ring = std::make_unique<SpscRing<uint32_t, 4>>();
  for (uint32_t i = 0; i < 4; i++) CHECK(ring->push(i));
  CHECK_FALSE(ring->push(4));
  CHECK(ring->lost.load() == 1);
  uint32_t out[4];
  CHECK(ring->pop(out, 2) == 2);
  CHECK(out[1] == 1);
  CHECK(ring->push(5));
  CHECK(ring->pop(out, 4) == 3);
  CHECK(out[2] == 5);
  CHECK(ring->pop(out, 4) == 0);
  ring->push(6);
  ring->clear();
  CHECK(ring->pop(out, 4) == 0);
}

TEST_CASE("ring: indexes run over 2^32") {
  auto ring = std::make_unique<SpscRing<uint32_t, 4>>();
  ring->head.store(0xfffffffe);
  ring->tail.store(0xfffffffe);
  uint32_t out[4];
  for (uint32_t i = 0; i < 10; i++) {
    CHECK(ring->push(i));
    CHECK(ring->pop(out, 4) == 1);
    CHECK(out[0] == i);
  }
}

TEST_CASE("ring: a consumer that corrupts its index stays inside the ring") {
  auto ring = std::make_unique<SpscRing<uint32_t, 4>>();
  ring->tail.store(0x12345678);
  CHECK_FALSE(ring->push(1));
  uint32_t out[8];
  CHECK(ring->pop(out, 8) <= 4);
}

TEST_CASE("ring: two threads, 2 M items, in order, all accounted for") {
  auto ring = std::make_unique<Ring>();
  std::thread producer([&] {
    for (uint64_t i = 1; i <= ring_items; i++) ring->push({i, ~i});
  });
  Item out[64];
  uint64_t got = 0, last = 0;
  bool ordered = true, whole = true;
  while (last < ring_items && got + ring->lost.load() < ring_items) {
    const uint32_t count = ring->pop(out, 64);
    for (uint32_t i = 0; i < count; i++) {
      ordered = ordered && out[i].value > last;
      whole = whole && out[i].check == ~out[i].value;
      last = out[i].value;
    }
    got += count;
  }
  producer.join();
  for (uint32_t count; (count = ring->pop(out, 64)) > 0;) got += count;
  CHECK(ordered);
  CHECK(whole);
  CHECK(got + ring->lost.load() == ring_items);
}

TEST_CASE("ring: between two processes over one mapping") {
  void* memory =
      mmap(nullptr, sizeof(Ring), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  Ring* ring = static_cast<Ring*>(memory);
  const pid_t child = fork();
  if (child == 0) {
    for (uint64_t i = 1; i <= 100'000;) i += ring->push({i, ~i}) ? 1 : 0;
    _exit(0);
  }
  Item out[64];
  uint64_t last = 0;
  bool whole = true;
  while (last < 100'000) {
    const uint32_t count = ring->pop(out, 64);
    for (uint32_t i = 0; i < count; i++) {
      whole = whole && out[i].value == last + 1 && out[i].check == ~out[i].value;
      last = out[i].value;
    }
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(whole);
  CHECK(status == 0);
  munmap(memory, sizeof(Ring));
}

TEST_CASE("triple buffer: newest value, whole, never twice") {
  struct Value {
    uint64_t a = 0, b = 0;
  };
  TripleBuffer<Value> buffer;
  CHECK(buffer.take() == nullptr);
  buffer.draft() = {1, 1};
  buffer.publish();
  buffer.draft() = {2, 2};
  buffer.publish();
  REQUIRE(buffer.take() != nullptr);
  CHECK(buffer.take() == nullptr);
  constexpr uint64_t last = 300'000;
  std::thread writer([&] {
    for (uint64_t i = 3; i <= last; i++) {
      buffer.draft() = {i, i};
      buffer.publish();
    }
  });
  uint64_t seen = 2;
  bool whole = true, newer = true;
  while (seen < last) {
    const Value* value = buffer.take();
    if (value == nullptr) continue;
    whole = whole && value->a == value->b;
    newer = newer && value->a > seen;
    seen = value->a;
  }
  writer.join();
  CHECK(whole);
  CHECK(newer);
}

TEST_CASE("seqlock: a copy is never torn") {
  struct Value {
    uint64_t words[16];
  };
  auto lock = std::make_unique<Seqlock<Value>>();
  constexpr uint64_t last = 100'000;
  std::thread writer([&] {
    for (uint64_t i = 1; i <= last; i++) {
      Value value;
      for (uint64_t& word : value.words) word = i;
      lock->write(value);
    }
  });
  bool whole = true;
  uint64_t seen = 0;
  while (seen < last) {
    Value value;
    if (!lock->read(value)) continue;
    for (const uint64_t word : value.words) whole = whole && word == value.words[0];
    seen = value.words[0];
  }
  writer.join();
  CHECK(whole);
}

TEST_CASE("seqlock: what a writer left half done is read only after the next one wrote") {
  struct Value {
    uint64_t a, b;
  };
  auto lock = std::make_unique<Seqlock<Value>>();
  lock->write({1, 1});
  lock->sequence.store(3);
  lock->words[0].store(7);
  Value value{};
  CHECK_FALSE(lock->read(value));
  lock->write({2, 2});
  REQUIRE(lock->read(value));
  CHECK(value.a == 2);
  CHECK(value.b == 2);
}

TEST_CASE("seqlock: a reader gives up when a writer died in the middle") {
  auto lock = std::make_unique<Seqlock<beat::Stats>>();
  lock->sequence.store(1);
  auto value = std::make_unique<beat::Stats>();
  CHECK_FALSE(lock->read(*value));
}
