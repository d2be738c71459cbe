#include <doctest/doctest.h>
#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <set>
#include <thread>
#include <vector>

#include "replica/ids.h"
#include "test/replica_scratch.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

IdEntry entry_of(FileId id, uint64_t inode, uint8_t volume = 0) {
  IdEntry entry;
  entry.id = id;
  entry.handle.type = 1;
  entry.handle.size = 8;
  std::memcpy(entry.handle.bytes, &inode, 8);
  entry.type = S_IFREG;
  entry.volume = volume;
  return entry;
}

void opened(Ids& ids, const Scratch& scratch) {
  const Result<bool> result = ids.open(scratch.at("ids"));
  CHECK(result.error == 0);
  REQUIRE(result.ok());
}

}  // namespace

TEST_CASE("ids: what was put is found by id and by handle, also after opening again") {
  const Scratch scratch;
  constexpr uint64_t files = 50000;
  {
    Ids ids;
    opened(ids, scratch);
    for (uint64_t i = 0; i < files; i++) REQUIRE(ids.put(entry_of(100 + i, i)) == 0);
    for (uint64_t i = 0; i < files; i += 3) ids.erase(100 + i);
    ids.set_flags(101, id_unlinked, 0);
    CHECK(ids.add_opens(102, 1) == 1);
    CHECK(ids.add_opens(102, 1) == 2);
  }
  Ids ids;
  opened(ids, scratch);
  CHECK(ids.count() == files - (files + 2) / 3);
  IdEntry found;
  for (uint64_t i = 0; i < files; i++) {
    const bool there = i % 3 != 0;
    REQUIRE(ids.get(100 + i, found) == there);
    REQUIRE(ids.find(0, entry_of(0, i).handle) == (there ? 100 + i : 0));
  }
  CHECK(ids.find(1, entry_of(0, 1).handle) == 0);
  REQUIRE(ids.get(101, found));
  CHECK(found.flags == id_unlinked);
  CHECK(found.type == S_IFREG);
  REQUIRE(ids.get(102, found));
  CHECK(found.opens == 2);
  ids.forget_opens();
  CHECK_FALSE(ids.get(101, found));
  REQUIRE(ids.get(102, found));
  CHECK(found.opens == 0);
  CHECK(ids.sync() == 0);
}

TEST_CASE("ids: putting an id again replaces its handle") {
  const Scratch scratch;
  Ids ids;
  opened(ids, scratch);
  REQUIRE(ids.put(entry_of(50, 1)) == 0);
  REQUIRE(ids.put(entry_of(50, 2)) == 0);
  CHECK(ids.count() == 1);
  CHECK(ids.find(0, entry_of(0, 1).handle) == 0);
  CHECK(ids.find(0, entry_of(0, 2).handle) == 50);
  REQUIRE(ids.put(entry_of(51, 1, 3)) == 0);
  CHECK(ids.find(3, entry_of(0, 1).handle) == 51);
}

TEST_CASE("ids: no number is given out twice, whoever asks and however often it is opened") {
  const Scratch scratch;
  std::set<FileId> seen;
  for (int round = 0; round < 3; round++) {
    Ids ids;
    opened(ids, scratch);
    std::vector<FileId> got[2];
    std::thread threads[2];
    for (int t = 0; t < 2; t++) {
      threads[t] = std::thread([&, t] {
        for (int i = 0; i < 70000; i++) got[t].push_back(ids.allocate(7));
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& list : got) {
      for (const FileId id : list) {
        REQUIRE(seen.insert(id).second);
        REQUIRE((id >> 40) == 7);
        REQUIRE((id & 0xffffffffff) > max_root);
      }
    }
  }
}

TEST_CASE("ids: entries may come and go while all are visited") {
  const Scratch scratch;
  Ids ids;
  opened(ids, scratch);
  for (uint64_t i = 0; i < 2000; i++) REQUIRE(ids.put(entry_of(100 + i, i)) == 0);
  struct Visit {
    Ids& ids;
    std::set<FileId> seen;
  } visit{ids, {}};
  ids.for_each(
      [](void* context, const IdEntry& entry) {
        auto& self = *static_cast<Visit*>(context);
        if (entry.id < 2100) {
          self.ids.erase(entry.id);
          self.ids.put(entry_of(entry.id + 10000, entry.id + 10000));
        }
        return self.seen.insert(entry.id).second;
      },
      &visit);
  for (uint64_t i = 0; i < 2000; i++) REQUIRE(visit.seen.contains(100 + i));
  CHECK(ids.count() == 2000);
}

TEST_CASE("ids: a process that is killed leaves a table that opens, with all that was put") {
  const Scratch scratch;
  for (int round = 0; round < 20; round++) {
    int ready[2];
    REQUIRE(pipe(ready) == 0);
    const pid_t child = fork();
    if (child == 0) {
      Ids ids;
      if (!ids.open(scratch.at("ids")).ok()) _exit(1);
      for (uint64_t i = 0;; i++) {
        const uint64_t n = 1000 + i % 30000;
        ids.put(entry_of(n, i));  // now and then a new handle for an old id
        if (i % 7 == 0) ids.erase(n);
        if (i % 1000 == 0) ids.allocate(1);
        if (i == 100 + static_cast<uint64_t>(round) * 997) {
          [[maybe_unused]] const ssize_t sent = write(ready[1], &i, sizeof i);
        }
      }
    }
    uint64_t done = 0;
    REQUIRE(read(ready[0], &done, sizeof done) == sizeof done);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    close(ready[0]);
    close(ready[1]);
    Ids ids;
    opened(ids, scratch);
    uint64_t seen = 0;
    ids.for_each(
        [](void* context, const IdEntry& entry) {
          ++*static_cast<uint64_t*>(context);
          return entry.id >= 1000 && entry.id < 31000 && entry.type == S_IFREG &&
                 entry.handle.size == 8;
        },
        &seen);
    CHECK(seen == ids.count());
    CHECK(seen > 0);
  }
}

TEST_CASE("ids: a damaged slot is left out, a damaged head is an error") {
  const Scratch scratch;
  {
    Ids ids;
    opened(ids, scratch);
    for (uint64_t i = 0; i < 100; i++) REQUIRE(ids.put(entry_of(100 + i, i)) == 0);
  }
  const Fd file(open(scratch.at("ids").c_str(), O_RDWR));
  const uint8_t bad = 0xee;
  REQUIRE(pwrite(file.get(), &bad, 1, 4096 + 64 * 5 + 40) == 1);
  {
    Ids ids;
    opened(ids, scratch);
    CHECK(ids.count() == 99);
    IdEntry found;
    CHECK_FALSE(ids.get(105, found));
    REQUIRE(ids.put(entry_of(105, 5)) == 0);
  }
  REQUIRE(pwrite(file.get(), &bad, 1, 8) == 1);
  Ids ids;
  CHECK(ids.open(scratch.at("ids")).error == EBADMSG);
  REQUIRE(ftruncate(file.get(), 100) == 0);
  Ids shorter;
  CHECK(shorter.open(scratch.at("ids")).error == EBADMSG);
}
