#include <arpa/inet.h>
#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "filter/farm_hash.h"

namespace {

uint64_t rotl(uint64_t x, int bits) {
  return (x << bits) | (x >> (64 - bits));
}

/* SipHash-c-d by the paper, byte for byte; the filter's is unrolled for its two message lengths. */
uint64_t sip_hash(int c, int d, const uint8_t* key, const std::vector<uint8_t>& message) {
  uint64_t k[2];
  memcpy(k, key, sizeof(k));
  uint64_t v[4] = {k[0] ^ 0x736f6d6570736575u, k[1] ^ 0x646f72616e646f6du,
                   k[0] ^ 0x6c7967656e657261u, k[1] ^ 0x7465646279746573u};
  auto rounds = [&v](int count) {
    for (int i = 0; i < count; i++) {
      v[0] += v[1], v[1] = rotl(v[1], 13) ^ v[0], v[0] = rotl(v[0], 32);
      v[2] += v[3], v[3] = rotl(v[3], 16) ^ v[2];
      v[0] += v[3], v[3] = rotl(v[3], 21) ^ v[0];
      v[2] += v[1], v[1] = rotl(v[1], 17) ^ v[2], v[2] = rotl(v[2], 32);
    }
  };
  for (size_t at = 0; at <= message.size(); at += 8) {
    uint64_t m = 0;
    size_t left = message.size() - at;
    if (left > 0) memcpy(&m, message.data() + at, left < 8 ? left : 8);
    if (left < 8) m |= static_cast<uint64_t>(message.size()) << 56;
    v[3] ^= m;
    rounds(c);
    v[0] ^= m;
  }
  v[2] ^= 0xff;
  rounds(d);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

const uint8_t paper_key[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

}  // namespace

TEST_CASE("hash: the test's own SipHash gives the paper's vector") {
  std::vector<uint8_t> message;
  for (uint8_t i = 0; i < 15; i++) message.push_back(i);
  CHECK(sip_hash(2, 4, paper_key, message) == 0xa129ca6149be45e5u);
}

TEST_CASE("hash: buckets are SipHash-1-3 of address and extra") {
  __u64 key[2];
  memcpy(key, paper_key, sizeof(key));
  uint32_t seed = 1;
  auto random = [&seed] { return seed = seed * 1664525u + 1013904223u; };
  for (int i = 0; i < 1000; i++) {
    uint32_t addr[4] = {random(), random(), random(), random()};
    auto extra = static_cast<uint16_t>(random() >> 16);
    std::vector<uint8_t> four(6);
    memcpy(four.data(), addr, 4);
    memcpy(four.data() + 4, &extra, 2);
    std::vector<uint8_t> six(18);
    memcpy(six.data(), addr, 16);
    memcpy(six.data() + 16, &extra, 2);
    CHECK(farm_bucket4(key, addr[0], extra) == (sip_hash(1, 3, paper_key, four) & 4095));
    CHECK(farm_bucket6(key, addr, extra) == (sip_hash(1, 3, paper_key, six) & 4095));
  }
}

TEST_CASE("hash: clients spread evenly over the buckets") {
  const __u64 key[2] = {0x0123456789abcdefu, 0xfedcba9876543210u};
  std::vector<unsigned> hits(FARM_BUCKETS);
  constexpr unsigned clients = 409600;
  for (uint32_t i = 0; i < clients; i++) hits[farm_bucket4(key, htonl(0x0a000000u + i), 0)]++;
  double chi = 0;
  constexpr double mean = double{clients} / FARM_BUCKETS;
  for (unsigned n : hits) chi += (n - mean) * (n - mean) / mean;
  /* Chi-square with 4095 degrees of freedom: mean 4095, sigma 90; five sigma either way. */
  CHECK(chi > 3640);
  CHECK(chi < 4550);
}
