#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "beat/wire.h"

using namespace holdfast;
using namespace holdfast::beat;

namespace {

constexpr uint64_t cluster = 0x1122334455667788;
const HmacSha256 key("0123456789abcdef0123456789abcdef", 32);

Heartbeat sample(uint8_t lans, uint8_t modules) {
  Heartbeat beat{};
  beat.header.flags = wire_flag_hung;
  beat.header.lan_count = lans;
  beat.header.module_count = modules;
  beat.header.cluster = cluster;
  beat.header.from = 3;
  beat.header.to = 5;
  beat.header.lan = 1;
  beat.header.lateness_us = 77;
  beat.header.boot = 0xdeadbeefcafe;
  beat.header.sequence = 42;
  beat.header.sent_ns = 1000;
  beat.header.next_ns = 2000;
  beat.header.echo_boot = 9;
  beat.header.challenge_boot = 10;
  beat.header.challenge_sequence = 11;
  for (uint8_t i = 0; i < lans; i++) beat.echoes[i] = {100U + i, 200U + i, 300U + i, 0};
  for (uint8_t i = 0; i < modules; i++) beat.modules[i] = {i, 1, 7U + i, 0xff};
  return beat;
}

std::vector<uint8_t> encoded(const Heartbeat& beat) {
  uint8_t buffer[wire_max_size];
  const size_t size = encode(beat, key, buffer);
  return {buffer, buffer + size};
}

WireFault decoded(const std::vector<uint8_t>& data, Heartbeat& out, uint64_t of = cluster) {
  // A copy of the exact size, so that a sanitizer sees any read beyond it.
  auto exact = std::make_unique<uint8_t[]>(data.size());
  std::copy(data.begin(), data.end(), exact.get());
  return decode(exact.get(), data.size(), of, key, out);
}

}  // namespace

TEST_CASE("wire: what is written is read, for all counts") {
  for (uint8_t lans = 1; lans <= max_lans; lans++) {
    for (const uint8_t modules : {uint8_t{0}, uint8_t{1}, uint8_t{max_modules}}) {
      const Heartbeat beat = sample(lans, modules);
      Heartbeat back{};
      REQUIRE(decoded(encoded(beat), back) == WireFault::none);
      Heartbeat expected = beat;
      expected.header.magic = wire_magic;
      expected.header.version = wire_version;
      CHECK(std::memcmp(&back.header, &expected.header, sizeof(WireHeader)) == 0);
      CHECK(std::memcmp(back.echoes, beat.echoes, lans * sizeof(WireEcho)) == 0);
      CHECK(std::memcmp(back.modules, beat.modules, modules * sizeof(WireModule)) == 0);
    }
  }
}

TEST_CASE("wire: the layout is fixed") {
  const std::vector<uint8_t> bytes = encoded(sample(2, 1));
  CHECK(bytes.size() == 80 + 2 * 24 + 24 + 16);
  CHECK(std::memcmp(bytes.data(), "HFB1\x01\x01\x02\x01", 8) == 0);
  CHECK(bytes[8] == 0x88);  // cluster, little endian
  CHECK(bytes[16] == 3);    // from
  CHECK(bytes[32] == 42);   // sequence
  CHECK(bytes[80] == 100);  // first echo
  CHECK(bytes[136] == 7);   // epoch of the first module
}

TEST_CASE("wire: any bit that changes is noticed") {
  const std::vector<uint8_t> good = encoded(sample(2, 2));
  Heartbeat out;
  for (size_t i = 0; i < good.size() * 8; i++) {
    std::vector<uint8_t> bad = good;
    bad[i / 8] = static_cast<uint8_t>(bad[i / 8] ^ (1U << (i % 8)));
    CHECK(decoded(bad, out) != WireFault::none);
  }
}

TEST_CASE("wire: faults by kind") {
  Heartbeat out;
  const std::vector<uint8_t> good = encoded(sample(2, 2));
  CHECK(decoded({}, out) == WireFault::malformed);
  for (size_t size = 1; size < good.size(); size++) {
    CHECK(decoded({good.begin(), good.begin() + static_cast<long>(size)}, out) ==
          WireFault::malformed);
  }
  std::vector<uint8_t> longer = good;
  longer.push_back(0);
  CHECK(decoded(longer, out) == WireFault::malformed);
  longer.resize(wire_max_size + 1);
  CHECK(decoded(longer, out) == WireFault::malformed);
  CHECK(decoded(good, out, cluster + 1) == WireFault::foreign);
  uint8_t forged[wire_max_size];
  const size_t size = encode(sample(2, 2), HmacSha256("another key", 11), forged);
  CHECK(decoded({forged, forged + size}, out) == WireFault::bad_mac);
  std::vector<uint8_t> counts = good;
  counts[6] = max_lans + 1;
  CHECK(decoded(counts, out) == WireFault::malformed);
  counts[6] = 0;
  CHECK(decoded(counts, out) == WireFault::malformed);
  counts = good;
  counts[7] = max_modules + 1;
  CHECK(decoded(counts, out) == WireFault::malformed);
}

TEST_CASE("wire: random bytes are never taken for a heartbeat") {
  std::mt19937_64 random(1);
  const std::vector<uint8_t> good = encoded(sample(3, 5));
  Heartbeat out;
  for (int round = 0; round < 20000; round++) {
    std::vector<uint8_t> data(random() % (wire_max_size + 20));
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
    // Half of them with a true head, to get past the first checks.
    if (round % 2 == 0) std::copy_n(good.begin(), std::min<size_t>(data.size(), 80), data.begin());
    CHECK(decoded(data, out) != WireFault::none);
  }
}
