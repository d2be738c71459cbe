#include <map>

#include "test/fuzz/replica_fuzz.h"

/**
 * Recovery of a journal that was spoilt: bytes changed, blocks copied to other places, raw bytes, a
 * checkpoint that is not one. What is found must be what was written, without a gap, from the
 * checkpoint on; and after that the journal must work.
 */
using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::fuzz;

namespace {

constexpr uint64_t blocks = 24;
constexpr uint64_t journal_size = blocks * journal_block;

int put(Journal& journal, const std::vector<uint8_t>& records, const Tail& tail) {
  AlignedBuffer buffer(records.size());
  std::memcpy(buffer.data(), records.data(), records.size());
  return journal.write(buffer.data(), records.size(), tail);
}

struct Written {
  std::map<Lsn, std::vector<uint8_t>> records;
  std::vector<JournalPoint> points;  // where writes began
};

/** Some laps of writes, as the input says. */
Written fill(Journal& journal, Input& input) {
  Written written;
  Tail tail = journal.end().tail;
  for (unsigned count = input.take<uint8_t>() % 40u; count > 0; count--) {
    const auto amount = input.take<uint16_t>();
    const JournalPoint at = journal.end();
    std::vector<uint8_t> batch;
    for (unsigned i = 0; i <= amount % 3u; i++) {
      const auto record = write_of(amount % 7000u, tail, 1 + tail.lsn / 8);
      written.records[tail.lsn] = record;
      batch.insert(batch.end(), record.begin(), record.end());
    }
    if (journal.room() < batch.size() + journal_block) journal.free_to(at.cursor);
    must(put(journal, batch, tail) == 0, "write");
    written.points.push_back(at);
  }
  written.points.push_back(journal.end());
  return written;
}

void spoil(int fd, Input& input) {
  const auto how = input.take<uint8_t>();
  const auto where = input.take<uint32_t>();
  alignas(disk_block) static uint8_t block[journal_block];
  const uint64_t at = where % blocks * journal_block;
  must(read_at(fd, block, sizeof block, at) == 0, "read");
  if (how < 100) {
    block[where / blocks % journal_block] ^= input.take<uint8_t>();
  } else if (how < 150) {
    const auto raw = input.bytes(200);
    if (!raw.empty()) std::memcpy(block + where / blocks % 3000, raw.data(), raw.size());
  } else if (how < 200) {
    // A sector that was not written.
    std::memset(block + where / blocks % 8 * 512, 0, 512);
  } else {
    // A block at another block's place.
    must(write_at(fd, block, sizeof block, input.take<uint8_t>() % blocks * journal_block) == 0,
         "write");
    return;
  }
  must(write_at(fd, block, sizeof block, at) == 0, "write");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static int fd = -1;
  static Journal& journal = scratch_journal(journal_size, &fd);
  Input input(data, size);
  // The same records again would be followed by what the last run left, and rightly so.
  static const AlignedBuffer zeros(journal_size);
  must(write_at(fd, zeros.data(), journal_size, 0) == 0, "zeros");
  must(journal.reset({}) == 0, "reset");
  const Written written = fill(journal, input);
  const size_t oldest = written.points.size() > 4 ? written.points.size() - 4 : 0;
  JournalPoint from =
      written.points[oldest + input.take<uint8_t>() % (written.points.size() - oldest)];
  const bool honest = input.take<uint8_t>() < 200;
  if (!honest) {
    from.cursor += input.take<uint64_t>();
    from.tail.lsn += input.take<uint8_t>();
  }
  for (unsigned count = input.take<uint8_t>() % 8u; count > 0; count--) spoil(fd, input);

  Lsn next = from.tail.lsn + 1;
  const Result<JournalPoint> end =
      journal.recover(from, [&](const Record& record, std::span<const uint8_t> bytes) {
        must(record.head.lsn == next++, "no gap");
        const auto sent = written.records.find(record.head.lsn);
        must(sent != written.records.end(), "nothing that was never written");
        // The bytes behind a payload are nobody's.
        const size_t used = sizeof(RecordHead) + record.head.payload_size;
        must(bytes.size() == sent->second.size() &&
                 std::memcmp(bytes.data(), sent->second.data(), used) == 0,
             "the record that was written");
      });
  if (!end.ok()) {
    must(end.error == EBADMSG && !honest, "an honest checkpoint is taken");
    return 0;
  }
  must(end.value.tail.lsn == next - 1 && end.value.cursor % journal_block == 0, "the end");
  must(end.value.cursor - from.cursor <= journal_size, "within a lap");
  // It goes on from there, and that is found the next time.
  Tail tail = end.value.tail;
  const auto more = write_of(100, tail, tail.epoch + 1);
  if (journal.room() < more.size()) return 0;
  must(put(journal, more, tail) == 0, "go on");
  const Result<JournalPoint> twice = journal.recover(from, nullptr);
  must(twice.ok() && twice.value.tail.lsn == tail.lsn && twice.value.tail.chain == tail.chain,
       "found again");
  return 0;
}
