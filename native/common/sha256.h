#pragma once
#include <cstddef>
#include <cstdint>

namespace holdfast {

/** SHA-256 (FIPS 180-4). No allocation; the time depends on the length only. */
class Sha256 {
 public:
  static constexpr size_t digest_size = 32;
  static constexpr size_t block_size = 64;

  Sha256();
  void update(const void* data, size_t size);
  /** Writes 32 bytes; the object must not be used after this. */
  void finish(uint8_t* digest);

 private:
  void block(const uint8_t* data);

  uint32_t state_[8];
  uint64_t length_ = 0;
  uint8_t pending_[block_size];
};

/** HMAC-SHA256 (RFC 2104) with the two key blocks hashed once, when the key is set. */
class HmacSha256 {
 public:
  HmacSha256() : HmacSha256(nullptr, 0) {}
  HmacSha256(const void* key, size_t size);
  /** Writes the first `tag_size` (at most 32) bytes of the tag of `data`. */
  void tag(const void* data, size_t size, uint8_t* tag, size_t tag_size) const;

 private:
  Sha256 inner_;
  Sha256 outer_;
};

/** Compares in a time that does not depend on the content. */
bool equal_constant_time(const uint8_t* a, const uint8_t* b, size_t size);

}  // namespace holdfast
