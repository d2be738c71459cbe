#include "common/sha256.h"

#include <bit>
#include <cstring>

namespace holdfast {
namespace {

// FIPS 180-4, 4.2.2: the first 32 bits of the fractional parts of the cube roots of the first 64
// primes.
constexpr uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t load_be32(const uint8_t* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | uint32_t{p[3]};
}

void store_be32(uint8_t* p, uint32_t value) {
  p[0] = static_cast<uint8_t>(value >> 24);
  p[1] = static_cast<uint8_t>(value >> 16);
  p[2] = static_cast<uint8_t>(value >> 8);
  p[3] = static_cast<uint8_t>(value);
}

}  // namespace

// FIPS 180-4, 5.3.3: square roots of the first 8 primes.
Sha256::Sha256()
    : state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
             0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19},
      pending_{} {}

void Sha256::block(const uint8_t* data) {
  uint32_t w[64];
  for (int t = 0; t < 16; t++) w[t] = load_be32(data + 4 * t);
  for (int t = 16; t < 64; t++) {
    const uint32_t s0 = std::rotr(w[t - 15], 7) ^ std::rotr(w[t - 15], 18) ^ (w[t - 15] >> 3);
    const uint32_t s1 = std::rotr(w[t - 2], 17) ^ std::rotr(w[t - 2], 19) ^ (w[t - 2] >> 10);
    w[t] = w[t - 16] + s0 + w[t - 7] + s1;
  }
  uint32_t a = state_[0], b = state_[1], c = state_[2], d = state_[3];
  uint32_t e = state_[4], f = state_[5], g = state_[6], h = state_[7];
  for (int t = 0; t < 64; t++) {
    const uint32_t big1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const uint32_t choose = (e & f) ^ (~e & g);
    const uint32_t t1 = h + big1 + choose + round_constants[t] + w[t];
    const uint32_t big0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const uint32_t majority = (a & b) ^ (a & c) ^ (b & c);
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + big0 + majority;
  }
  state_[0] += a;
  state_[1] += b;
  state_[2] += c;
  state_[3] += d;
  state_[4] += e;
  state_[5] += f;
  state_[6] += g;
  state_[7] += h;
}

void Sha256::update(const void* data, size_t size) {
  const uint8_t* from = static_cast<const uint8_t*>(data);
  size_t filled = static_cast<size_t>(length_ % block_size);
  length_ += size;
  while (size > 0) {
    if (filled == 0 && size >= block_size) {
      block(from);
      from += block_size;
      size -= block_size;
      continue;
    }
    const size_t part = size < block_size - filled ? size : block_size - filled;
    std::memcpy(pending_ + filled, from, part);
    from += part;
    size -= part;
    filled = (filled + part) % block_size;
    if (filled == 0) block(pending_);
  }
}

void Sha256::finish(uint8_t* digest) {
  const uint64_t bits = length_ * 8;
  const uint8_t one = 0x80;
  update(&one, 1);
  const uint8_t zeros[block_size] = {};
  const size_t filled = static_cast<size_t>(length_ % block_size);
  update(zeros, (filled <= 56 ? 56 : 56 + block_size) - filled);
  uint8_t length[8];
  store_be32(length, static_cast<uint32_t>(bits >> 32));
  store_be32(length + 4, static_cast<uint32_t>(bits));
  update(length, 8);
  for (int i = 0; i < 8; i++) store_be32(digest + 4 * i, state_[i]);
}

HmacSha256::HmacSha256(const void* key, size_t size) {
  uint8_t padded[Sha256::block_size] = {};
  if (size > Sha256::block_size) {
    Sha256 hash;
    hash.update(key, size);
    hash.finish(padded);
  } else if (size > 0) {
    std::memcpy(padded, key, size);
  }
  for (uint8_t& byte : padded) byte ^= 0x36;
  inner_.update(padded, sizeof padded);
  for (uint8_t& byte : padded) byte ^= 0x36 ^ 0x5c;
  outer_.update(padded, sizeof padded);
}

void HmacSha256::tag(const void* data, size_t size, uint8_t* tag, size_t tag_size) const {
  uint8_t digest[Sha256::digest_size];
  Sha256 inner = inner_;
  inner.update(data, size);
  inner.finish(digest);
  Sha256 outer = outer_;
  outer.update(digest, sizeof digest);
  outer.finish(digest);
  std::memcpy(tag, digest, tag_size);
}

bool equal_constant_time(const uint8_t* a, const uint8_t* b, size_t size) {
  uint8_t difference = 0;
  for (size_t i = 0; i < size; i++) difference = static_cast<uint8_t>(difference | (a[i] ^ b[i]));
  return difference == 0;
}

}  // namespace holdfast
