#include <doctest/doctest.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "replica/journal.h"
#include "test/replica_world.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

constexpr uint64_t small = 64 * journal_block;

/** Writes whole records as one write of the journal. */
int put(Journal& journal, const Bytes& records, const Tail& tail) {
  AlignedBuffer buffer(records.size());
  std::memcpy(buffer.data(), records.data(), records.size());
  return journal.write(buffer.data(), records.size(), tail);
}

struct Found {
  JournalPoint end;
  std::vector<Bytes> records;
  int error = 0;
};

Found recovered(Journal& journal, const JournalPoint& from) {
  Found found;
  const Result<JournalPoint> end =
      journal.recover(from, [&](const Record& record, std::span<const uint8_t> bytes) {
        CHECK(record.head.size == bytes.size());
        found.records.emplace_back(bytes.begin(), bytes.end());
      });
  found.error = end.error;
  found.end = end.value;
  return found;
}

Found recovered(const std::string& path, uint64_t size, const JournalPoint& from,
                const Faults* faults = nullptr) {
  Journal journal(faults);
  REQUIRE(journal.open(path, size).ok());
  return recovered(journal, from);
}

}  // namespace

TEST_CASE("journal: what was written is found again, at the place where it ended") {
  const Scratch folder;
  Stream stream;
  std::vector<Bytes> sent;
  JournalPoint end;
  {
    Journal journal;
    const Result<bool> made = journal.open(folder.at("journal"), 4 * small);
    REQUIRE(made.ok());
    CHECK(made.value);
    CHECK(journal.room() == 4 * small);
    for (const size_t size : {1u, 4096u, 40000u, 3968u, 8u}) {
      Bytes batch;
      for (int i = 0; i < 3; i++) {
        sent.push_back(stream.write(size));
        append(batch, sent.back());
      }
      REQUIRE(put(journal, batch, stream.tail) == 0);
    }
    end = journal.end();
    CHECK(end.cursor == journal.used());
    CHECK(end.cursor % journal_block == 0);
  }
  const Found found = recovered(folder.at("journal"), 4 * small, {});
  CHECK(found.error == 0);
  CHECK(found.records == sent);
  CHECK(found.end.cursor == end.cursor);
  CHECK(found.end.tail.lsn == stream.tail.lsn);
  CHECK(found.end.tail.chain == stream.tail.chain);
}

TEST_CASE("journal: a record of the largest size, round the end of the file") {
  const Scratch folder;
  const uint64_t size = 3u << 20;
  Stream stream;
  Journal journal;
  REQUIRE(journal.open(folder.at("journal"), size).ok());
  JournalPoint from = journal.end();
  for (int lap = 0; lap < 7; lap++) {
    from = journal.end();
    journal.free_to(from.cursor);
    const Bytes record = stream.write(max_data);
    REQUIRE(put(journal, record, stream.tail) == 0);
    const Found found = recovered(folder.at("journal"), size, from);
    REQUIRE(found.records.size() == 1);
    CHECK(found.records[0] == record);
    CHECK(found.end.cursor == journal.end().cursor);
  }
}

TEST_CASE("journal: full until the checkpoint has passed") {
  const Scratch folder;
  Stream stream;
  Journal journal;
  REQUIRE(journal.open(folder.at("journal"), small).ok());
  std::vector<JournalPoint> points;
  while (journal.room() > 0) {
    points.push_back(journal.end());
    const Bytes record = stream.write(2 * journal_block - 200);
    REQUIRE(put(journal, record, stream.tail) == 0);
  }
  CHECK(points.size() == 32);
  const Tail before = stream.tail;
  const Bytes record = stream.write(100);
  CHECK(put(journal, record, stream.tail) == ENOSPC);
  CHECK(journal.end().tail.lsn == before.lsn);
  // All of a full lap is found, and nothing twice.
  CHECK(recovered(folder.at("journal"), small, points[0]).records.size() == 32);
  journal.free_to(points[3].cursor);
  CHECK(journal.room() == 6 * journal_block);
  CHECK(put(journal, record, stream.tail) == 0);
  const Found found = recovered(folder.at("journal"), small, points[3]);
  CHECK(found.records.size() == 30);
  CHECK(found.end.tail.lsn == stream.tail.lsn);
  // What lies before the checkpoint, or beyond the end, is not freed.
  journal.free_to(points[1].cursor);
  CHECK(journal.room() == 5 * journal_block);
  journal.free_to(UINT64_MAX);
  CHECK(journal.used() == 0);
}

TEST_CASE("journal: an older lap is not taken for what comes next") {
  const Scratch folder;
  Stream stream;
  Journal journal;
  REQUIRE(journal.open(folder.at("journal"), small).ok());
  JournalPoint checkpoint;
  for (int i = 0; i < 1000; i++) {
    const JournalPoint before = journal.end();
    Bytes batch;
    for (int k = 0; k <= i % 3; k++) append(batch, stream.write(100 + 977u * (i % 11)));
    journal.free_to(checkpoint.cursor);
    REQUIRE(put(journal, batch, stream.tail) == 0);
    if (i % 5 == 0) checkpoint = before;
    const Found found = recovered(folder.at("journal"), small, checkpoint);
    REQUIRE(found.end.cursor == journal.end().cursor);
    REQUIRE(found.end.tail.lsn == stream.tail.lsn);
    REQUIRE(found.records.size() == stream.tail.lsn - checkpoint.tail.lsn);
  }
}

TEST_CASE("journal: a flipped bit ends it before the record that has it") {
  const Scratch folder;
  Stream stream;
  std::vector<Bytes> sent;
  std::vector<uint64_t> starts;
  uint64_t used = 0;
  {
    Journal journal;
    REQUIRE(journal.open(folder.at("journal"), small).ok());
    for (int i = 0; i < 12; i++) {
      Bytes batch;
      for (int k = 0; k < 2; k++) {
        starts.push_back(journal.end().cursor + batch.size());
        sent.push_back(stream.write(500 + 701u * static_cast<size_t>(i)));
        append(batch, sent.back());
      }
      REQUIRE(put(journal, batch, stream.tail) == 0);
    }
    used = journal.used();
  }
  const Bytes good = bytes_of(folder.at("journal"));
  std::mt19937 random(11);
  for (int i = 0; i < 400; i++) {
    const size_t record = random() % sent.size();
    const size_t byte = starts[record] + random() % sent[record].size();
    Bytes bad = good;
    bad[byte] = static_cast<uint8_t>(bad[byte] ^ (1u << (random() % 8)));
    put_bytes(folder.at("bad"), bad);
    const Found found = recovered(folder.at("bad"), small, {});
    // The padding behind a payload is nobody's: a flip there changes nothing.
    RecordHead head;
    std::memcpy(&head, sent[record].data(), sizeof head);
    const bool padding = byte - starts[record] >= sizeof head + head.payload_size;
    REQUIRE(found.records.size() == (padding ? sent.size() : record));
    for (size_t k = 0; k < found.records.size(); k++) {
      if (!padding) REQUIRE(found.records[k] == sent[k]);
    }
    REQUIRE(found.end.cursor <= used);
  }
}

TEST_CASE("journal: goes on after a torn write, in the block after the last good record") {
  const Scratch folder;
  Stream stream;
  Bytes batch, kept;
  Tail middle;
  Journal journal;
  REQUIRE(journal.open(folder.at("journal"), small).ok());
  for (int i = 0; i < 4; i++) append(batch, stream.write(300));
  kept = batch;
  middle = stream.tail;
  for (int i = 0; i < 20; i++) append(batch, stream.write(900));
  REQUIRE(put(journal, batch, stream.tail) == 0);
  // The second sector of the first block did not make it: the third record is the first torn one.
  Bytes bytes = bytes_of(folder.at("journal"));
  std::fill_n(bytes.begin() + 4 * 512, 512, uint8_t{0});
  put_bytes(folder.at("torn"), bytes);
  Journal next;
  REQUIRE(next.open(folder.at("torn"), small).ok());
  const Found found = recovered(next, {});
  CHECK(found.end.tail.lsn < stream.tail.lsn);
  CHECK(found.end.tail.lsn > 0);
  CHECK(found.end.cursor == journal_block);
  // The primary sends the rest again.
  Stream again{found.end.tail, 1};
  std::vector<Bytes> all = found.records;
  for (int i = 0; i < 5; i++) {
    all.push_back(again.write(700));
    REQUIRE(put(next, all.back(), again.tail) == 0);
  }
  const Found twice = recovered(folder.at("torn"), small, {});
  CHECK(twice.records == all);
  CHECK(twice.end.cursor == next.end().cursor);
}

TEST_CASE("journal: a checkpoint that cannot be one, and files that are not this journal") {
  const Scratch folder;
  Stream stream;
  Journal journal;
  CHECK(journal.open(folder.at("none"), 0).error == EINVAL);
  CHECK(journal.open(folder.at("none"), journal_block + 1).error == EINVAL);
  CHECK(journal.open(folder.at("no/folder"), small).error == ENOENT);
  CHECK(journal.open(folder.path, small).error == EISDIR);
  REQUIRE(journal.open(folder.at("journal"), small).ok());
  const Bytes written = stream.write(5000);
  REQUIRE(put(journal, written, stream.tail) == 0);
  CHECK(recovered(journal, {1, {}}).error == EBADMSG);
  CHECK(recovered(journal, {journal_block, {}}).error == EBADMSG);
  CHECK(recovered(journal, {~uint64_t{journal_block - 1}, {1, 1, 1}}).error == EBADMSG);
  // A tail that these records do not follow: nothing is taken.
  const Found other = recovered(journal, {0, {0, 5, 0}});
  CHECK(other.error == 0);
  CHECK(other.records.empty());
  CHECK(recovered(journal, {0, {0, 0, 7}}).records.empty());
  CHECK(recovered(journal, {0, {3, 1, 99}}).records.empty());
  // A file that was cut or has grown.
  CHECK(Journal().open(folder.at("journal"), 2 * small).error == EINVAL);
  REQUIRE(truncate(folder.at("journal").c_str(), small - 512) == 0);
  CHECK(Journal().open(folder.at("journal"), small).error == EINVAL);
  // Cut while it is open.
  REQUIRE(truncate(folder.at("journal").c_str(), journal_block) == 0);
  CHECK(recovered(journal, {}).error == EIO);
}

TEST_CASE("journal: reset forgets, also what would follow") {
  const Scratch folder;
  Stream stream;
  Journal journal;
  REQUIRE(journal.open(folder.at("journal"), small).ok());
  const Bytes first = stream.write(100);
  REQUIRE(put(journal, first, stream.tail) == 0);
  const Tail start = stream.tail;
  REQUIRE(journal.reset({}) == 0);
  CHECK(recovered(journal, {}).records.empty());
  REQUIRE(journal.reset(start) == 0);
  CHECK(journal.end().tail.lsn == start.lsn);
  CHECK(journal.room() == small);
  const Bytes second = stream.write(100);
  REQUIRE(put(journal, second, stream.tail) == 0);
  const Found found = recovered(journal, {0, start});
  REQUIRE(found.records.size() == 1);
  CHECK(found.records[0] == second);
}

TEST_CASE("journal: made whole or not at all") {
  const Scratch folder;
  put_bytes(folder.at("journal.new"), Bytes(1000, 7));
  Journal journal;
  REQUIRE(journal.open(folder.at("journal"), small).ok());
  CHECK(bytes_of(folder.at("journal")) == Bytes(small));
  CHECK(access(folder.at("journal.new").c_str(), F_OK) != 0);
  // Every block is there: a write inside needs no allocation.
  struct stat attributes;
  REQUIRE(stat(folder.at("journal").c_str(), &attributes) == 0);
  CHECK(static_cast<uint64_t>(attributes.st_blocks) * 512 >= small);
}

TEST_CASE("journal: a reader follows while the other thread's writes arrive") {
  const Scratch folder;
  Stream stream;
  Journal journal;
  REQUIRE(journal.open(folder.at("journal"), small).ok());
  JournalReader reader(journal, journal.end());
  Record record;
  std::span<const uint8_t> bytes;
  for (int i = 0; i < 500; i++) {
    const Result<bool> none = reader.next(journal.end().cursor, record, bytes);
    REQUIRE(none.ok());
    REQUIRE_FALSE(none.value);
    Bytes first = stream.write(50 + 37u * (static_cast<size_t>(i) % 200)), batch = first;
    const Bytes second = stream.write(60);
    append(batch, second);
    REQUIRE(put(journal, batch, stream.tail) == 0);
    for (const Bytes& expected : {first, second}) {
      const Result<bool> next = reader.next(journal.end().cursor, record, bytes);
      REQUIRE(next.ok());
      REQUIRE(next.value);
      REQUIRE(Bytes(bytes.begin(), bytes.end()) == expected);
    }
    REQUIRE(reader.point().cursor == journal.end().cursor);
    journal.free_to(reader.point().cursor);
  }
}
