#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "common/sha256.h"

using holdfast::equal_constant_time;
using holdfast::HmacSha256;
using holdfast::Sha256;

namespace {

std::string hex(const uint8_t* data, size_t size) {
  static const char digits[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < size; i++) {
    out += digits[data[i] >> 4];
    out += digits[data[i] & 15];
  }
  return out;
}

std::string sha256(const std::string& text, size_t step) {
  Sha256 hash;
  for (size_t at = 0; at < text.size(); at += step) {
    hash.update(text.data() + at, std::min(step, text.size() - at));
  }
  uint8_t digest[32];
  hash.finish(digest);
  return hex(digest, 32);
}

std::string hmac(const std::string& key, const std::string& text, size_t size = 32) {
  uint8_t tag[32];
  HmacSha256(key.data(), key.size()).tag(text.data(), text.size(), tag, size);
  return hex(tag, size);
}

}  // namespace

// FIPS 180-4 examples (NIST, "Examples with Intermediate Values").
TEST_CASE("SHA-256: NIST vectors, whatever the pieces") {
  const std::string two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  for (const size_t step : {size_t{1}, size_t{7}, size_t{64}, size_t{1000000}}) {
    CHECK(sha256("", step) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256("abc", step) ==
          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(sha256(two_blocks, step) ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(sha256(std::string(1000000, 'a'), step) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}

TEST_CASE("SHA-256: every length around the block borders agrees with one update") {
  for (size_t length = 0; length < 200; length++) {
    const std::string text(length, 'x');
    CHECK(sha256(text, 1) == sha256(text, 1000));
  }
}

// RFC 4231, test cases 1 to 7 (5 is truncated to 128 bits, as heartbeats are).
TEST_CASE("HMAC-SHA256: RFC 4231") {
  CHECK(hmac(std::string(20, '\x0b'), "Hi There") ==
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  CHECK(hmac("Jefe", "what do ya want for nothing?") ==
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  CHECK(hmac(std::string(20, '\xaa'), std::string(50, '\xdd')) ==
        "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
  std::string counting;
  for (char c = 1; c <= 25; c++) counting += c;
  CHECK(hmac(counting, std::string(50, '\xcd')) ==
        "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b");
  CHECK(hmac(std::string(20, '\x0c'), "Test With Truncation", 16) ==
        "a3b6167473100ee06e0c796c2955552b");
  CHECK(hmac(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First") ==
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
  CHECK(hmac(std::string(131, '\xaa'),
             "This is a test using a larger than block-size key and a larger than block-size "
             "data. The key needs to be hashed before being used by the HMAC algorithm.") ==
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
}

TEST_CASE("constant-time comparison sees any difference") {
  uint8_t a[16] = {}, b[16] = {};
  CHECK(equal_constant_time(a, b, 16));
  for (int i = 0; i < 16; i++) {
    b[i] = 0x80;
    CHECK_FALSE(equal_constant_time(a, b, 16));
    b[i] = 0;
  }
}
