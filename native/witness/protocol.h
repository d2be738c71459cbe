#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

/**
 * What goes over a connection to the witness, inside TLS 1.3: questions one way, answers the other,
 * each of one size, in the order of the questions. Little endian. src/arbiter/witness-wire.ts has
 * the same; a test compares the two through the real program.
 */
namespace holdfast::witness {

static_assert(std::endian::native == std::endian::little);

/** "HFW1": first version. */
inline constexpr uint32_t question_magic = 0x31574648;
inline constexpr uint32_t answer_magic = 0x31614648;
inline constexpr size_t module_size_max = 32;
inline constexpr size_t nodes_max = 64;
inline constexpr uint64_t count_max = (1ull << 53) - 1;  // of what JavaScript counts exactly

/** A mirror's record; docs/internals/mirror-core.md says what it means. */
struct Record {
  uint64_t incarnation = 0;
  uint64_t epoch = 0;
  uint64_t in_sync = 0;  // bit n: node n
  uint32_t lease_ms = 0;
  uint8_t primary = 0;
  uint8_t zero[3] = {};

  bool operator==(const Record&) const = default;
};
static_assert(sizeof(Record) == 32);

enum class Ask : uint8_t { read = 1, swap = 2 };

struct Question {
  uint32_t magic = question_magic;
  uint32_t id = 0;  // comes back in the answer
  uint8_t ask = 0;
  uint8_t has_from = 0;
  uint8_t module_size = 0;
  uint8_t zero[5] = {};
  char module[module_size_max] = {};
  Record from;  // swap, if has_from
  Record to;    // swap
};
static_assert(sizeof(Question) == 112);

enum class Outcome : uint8_t {
  record = 1,       // of a read
  won = 2,          // the register holds `to`, durably
  lost = 3,         // it holds `record`
  unknown = 4,      // a swap that may have been done
  unreachable = 5,  // it was not done, and will not be; `text` says why
};

struct Answer {
  uint32_t magic = answer_magic;
  uint32_t id = 0;
  uint8_t outcome = 0;
  uint8_t has_record = 0;  // record, lost: 0 where there is none
  uint8_t text_size = 0;
  uint8_t zero[5] = {};
  Record record;
  char text[112] = {};
};
static_assert(sizeof(Answer) == 160);

/** A record that can be one: every number in its range, a set that is not empty. */
inline bool is_valid(const Record& record) {
  return record.incarnation <= count_max && record.epoch <= count_max &&
         record.primary < nodes_max && record.in_sync != 0 && record.lease_ms <= 86'400'000 &&
         record.zero[0] == 0 && record.zero[1] == 0 && record.zero[2] == 0;
}

/** (incarnation, epoch): what may take the place of `than`. */
inline bool is_later(const Record& record, const Record& than) {
  if (record.incarnation != than.incarnation) return record.incarnation > than.incarnation;
  return record.epoch > than.epoch;
}

}  // namespace holdfast::witness
