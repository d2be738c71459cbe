#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "replica/journal.h"
#include "test/replica_world.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

/**
 * Simulated power loss: the journal's file as it may be found afterwards. What was acknowledged is
 * there; of the write under way any subset of its 512-byte sectors is.
 */
namespace {

constexpr size_t sector = 512;
constexpr uint64_t size_of_journal = 48 * journal_block;

struct Outcome {
  int lost = 0;     // something acknowledged was not found
  int foreign = 0;  // something was found that was never sent, or not in its place
  int torn = 0;     // power losses that left a part of the write under way
  uint64_t records = 0;
};

/** A secondary's disk over many power losses; the primary sends again what is not durable. */
class World {
 public:
  World(uint32_t seed, const Faults* faults) : random_(seed), faults_(faults) {
    Journal journal;
    REQUIRE(journal.open(file(), size_of_journal).ok());
    disk_ = bytes_of(file());
  }

  Outcome run(int losses) {
    for (int i = 0; i < losses && outcome_.lost + outcome_.foreign == 0; i++) live();
    return outcome_;
  }

 private:
  std::string file() const { return folder_.at("journal"); }

  /** One start of the secondary, until its power is lost. */
  void live() {
    put_bytes(file(), disk_);
    Journal journal(faults_);
    REQUIRE(journal.open(file(), size_of_journal).ok());
    if (!recover(journal)) return;
    for (int i = 0, writes = static_cast<int>(random_() % 12); i < writes; i++) {
      if (!write(journal)) break;
      acknowledged_ = journal.end().tail.lsn;
      disk_ = bytes_of(file());
      if (random_() % 4 == 0) checkpoint(journal);
    }
    if (!write(journal)) return;
    lose_power(bytes_of(file()));
  }

  bool recover(Journal& journal) {
    Lsn expected = checkpoint_.tail.lsn;
    const Result<JournalPoint> end =
        journal.recover(checkpoint_, [&](const Record& record, std::span<const uint8_t> bytes) {
          expected++;
          const auto sent = sent_.find(record.head.lsn);
          const bool same = sent != sent_.end() && std::ranges::equal(sent->second, bytes);
          if (!same || record.head.lsn != expected) outcome_.foreign++;
          outcome_.records++;
        });
    REQUIRE(end.ok());
    if (end.value.tail.lsn < acknowledged_) outcome_.lost++;
    if (outcome_.lost + outcome_.foreign > 0) return false;
    // The primary goes on from here: the same records again, or, as a new primary would, others.
    acknowledged_ = end.value.tail.lsn;
    stream_.tail = end.value.tail;
    if (random_() % 3 == 0) stream_.epoch++;
    for (auto each = sent_.upper_bound(acknowledged_); each != sent_.end();) {
      each = sent_.erase(each);
    }
    points_ = {checkpoint_};
    return true;
  }

  bool write(Journal& journal) {
    const JournalPoint at = journal.end();
    Bytes batch;
    const Stream before = stream_;
    for (size_t i = 0, count = 1 + random_() % 5; i < count; i++) {
      const Bytes record = stream_.write(1 + random_() % 3000);
      append(batch, record);
      sent_[stream_.tail.lsn] = record;
    }
    AlignedBuffer buffer(batch.size());
    std::memcpy(buffer.data(), batch.data(), batch.size());
    const int error = journal.write(buffer.data(), batch.size(), stream_.tail);
    if (error == ENOSPC) {
      stream_ = before;
      sent_.erase(sent_.upper_bound(before.tail.lsn), sent_.end());
      checkpoint(journal);
      return false;
    }
    REQUIRE(error == 0);
    points_.push_back(at);
    return true;
  }

  /** The applier has come to some write; the superblock with that point is durable first. */
  void checkpoint(Journal& journal) {
    points_.push_back(journal.end());
    const size_t to = random_() % points_.size();
    checkpoint_ = points_[to];
    journal.free_to(checkpoint_.cursor);
    points_.erase(points_.begin(), points_.begin() + static_cast<long>(to));
  }

  void lose_power(const Bytes& after) {
    const size_t odds = 1 + random_() % 8;
    bool some = false, all = true;
    for (size_t at = 0; at < disk_.size(); at += sector) {
      const auto from = after.begin() + static_cast<long>(at);
      if (std::equal(from, from + sector, disk_.begin() + static_cast<long>(at))) continue;
      const bool written = random_() % 8 < odds;
      (written ? some : all) = written;
      if (written) std::copy_n(from, sector, disk_.begin() + static_cast<long>(at));
    }
    if (some && !all) outcome_.torn++;
  }

  Scratch folder_;
  std::mt19937 random_;
  const Faults* faults_;
  Stream stream_;
  Bytes disk_;
  JournalPoint checkpoint_;
  std::vector<JournalPoint> points_{JournalPoint{}};  // where writes began, oldest first
  std::map<Lsn, Bytes> sent_;
  Lsn acknowledged_ = 0;
  Outcome outcome_;
};

}  // namespace

TEST_CASE("power: all that was acknowledged is found, and nothing that was never sent") {
  Outcome sum;
  for (uint32_t seed = 1; seed <= 20; seed++) {
    CAPTURE(seed);
    World world(seed, nullptr);
    const Outcome outcome = world.run(50);
    CHECK(outcome.lost == 0);
    CHECK(outcome.foreign == 0);
    sum.torn += outcome.torn;
    sum.records += outcome.records;
  }
  CHECK(sum.torn > 300);
  CHECK(sum.records > 1000);
}

TEST_CASE("power: a recovery that does not check what follows is caught") {
  Faults faults;
  faults.skip_journal_check = true;
  int caught = 0;
  for (uint32_t seed = 1; seed <= 5; seed++) {
    World world(seed, &faults);
    const Outcome outcome = world.run(50);
    caught += outcome.lost + outcome.foreign > 0 ? 1 : 0;
  }
  CHECK(caught == 5);
}
