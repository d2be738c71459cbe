#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <random>
#include <set>

#include "replica/marks_file.h"
#include "test/replica_world.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

std::vector<Mark> some_marks(uint32_t from, size_t count) {
  std::vector<Mark> out;
  for (size_t i = 0; i < count; i++) {
    out.push_back({1000 + from + i, uint32_t(i), uint32_t(MarkWhat::data)});
  }
  return out;
}

bool has_all(const MarkFileContent& content, const std::vector<Mark>& marks) {
  if (content.everything) return true;
  const std::set<Mark> found(content.marks.begin(), content.marks.end());
  return std::ranges::all_of(marks, [&](const Mark& mark) { return found.contains(mark); });
}

}  // namespace

TEST_CASE("marks file: what was added is read, whatever the sizes of the writes") {
  const Scratch folder;
  std::mt19937 random(11);
  MarkFile file;
  REQUIRE(file.make(folder.path, 7, 4711, 815, 20000) == 0);
  CHECK(read_marks(file.path(), 7).marks.empty());
  CHECK(read_marks(file.path(), 7).first_new == 4711);
  CHECK(read_marks(file.path(), 7).since == 815);
  std::vector<Mark> all;
  while (all.size() < 20000) {
    const size_t count = random() % 8 == 0 ? random() % 6000 : 1 + random() % 40;
    const auto more = some_marks(uint32_t(all.size() * 2), count);
    if (more.size() > file.room()) {
      CHECK(file.add(more) == ENOSPC);
      break;
    }
    REQUIRE(file.add(more) == 0);
    all.insert(all.end(), more.begin(), more.end());
    CHECK(file.used() == all.size());
    if (random() % 10 == 0) CHECK(read_marks(file.path(), 7).marks == all);
  }
  const MarkFileContent content = read_marks(file.path(), 7);
  CHECK_FALSE(content.everything);
  CHECK(content.marks == all);
  // It is no other generation's.
  CHECK(read_marks(file.path(), 8).everything);
}

TEST_CASE("marks file: it grows, and everything needs no room") {
  const Scratch folder;
  MarkFile file;
  REQUIRE(file.make(folder.path, 1, 20, 0, 64) == 0);
  const auto first = some_marks(0, file.room());
  REQUIRE(file.add(first) == 0);
  CHECK(file.room() == 0);
  CHECK(file.add(some_marks(0, 1)) == ENOSPC);
  REQUIRE(file.grow() == 0);
  CHECK(file.room() > 50000);
  REQUIRE(file.add(some_marks(900, 50000)) == 0);
  CHECK(read_marks(file.path(), 1).marks.size() == first.size() + 50000);
  REQUIRE(file.add(some_marks(0, file.room())) == 0);
  CHECK_FALSE(read_marks(file.path(), 1).everything);
  REQUIRE(file.add_everything() == 0);
  CHECK(read_marks(file.path(), 1).everything);
  REQUIRE(file.grow() == 0);
  REQUIRE(file.add(some_marks(0, 1)) == 0);
  CHECK(read_marks(file.path(), 1).everything);
}

TEST_CASE("marks file: of a torn write each sector may be old or new") {
  const Scratch folder;
  std::mt19937 random(5);
  MarkFile file;
  REQUIRE(file.make(folder.path, 3, 99, 0, 20000) == 0);
  std::vector<Mark> durable;
  Bytes before = bytes_of(file.path());
  int partly = 0;
  for (int i = 0; i < 300; i++) {
    const size_t count = random() % 4 == 0 ? 1 + random() % 500 : 1 + random() % 40;
    const auto more = some_marks(uint32_t(i * 600), count);
    if (file.room() < more.size()) break;
    REQUIRE(file.add(more) == 0);
    const Bytes after = bytes_of(file.path());
    Bytes torn = before;
    for (size_t at = 0; at < torn.size(); at += 512) {
      if (random() % 2 == 0) continue;
      std::copy_n(after.begin() + long(at), 512, torn.begin() + long(at));
    }
    put_bytes(folder.at("torn"), torn);
    const MarkFileContent found = read_marks(folder.at("torn"), 3);
    CHECK(has_all(found, durable));
    // A torn write is no reason to compare everything.
    CHECK_FALSE(found.everything);
    if (found.marks.size() > durable.size() && !has_all(found, more)) partly++;
    durable.insert(durable.end(), more.begin(), more.end());
    before = after;
  }
  CHECK(partly > 0);
}

TEST_CASE("marks file: any damage is everything") {
  const Scratch folder;
  MarkFile file;
  REQUIRE(file.make(folder.path, 3, 99, 0, 300) == 0);
  for (uint32_t i = 0; i < 10; i++) REQUIRE(file.add(some_marks(i * 100, 20)) == 0);
  const Bytes good = bytes_of(file.path());
  const size_t used = (200 + sector_marks - 1) / sector_marks * mark_sector;
  const auto found = [&](const Bytes& bytes) {
    put_bytes(folder.at("bad"), bytes);
    return read_marks(folder.at("bad"), 3);
  };
  REQUIRE_FALSE(found(good).everything);
  SUBCASE("a flipped bit") {
    for (size_t bit = 0; bit < used * 8; bit += 61) {
      Bytes bad = good;
      bad[bit / 8] = uint8_t(bad[bit / 8] ^ (1u << (bit % 8)));
      CHECK(found(bad).everything);
    }
  }
  SUBCASE("something where nothing was written") {
    for (size_t at = used; at < good.size(); at += 331) {
      Bytes bad = good;
      bad[at] = 1;
      CHECK(found(bad).everything);
    }
  }
  SUBCASE("a sector that is gone, before the last write") {
    for (size_t at = 0; at + 2 * mark_sector < used; at += mark_sector) {
      Bytes bad = good;
      std::fill_n(bad.begin() + long(at), mark_sector, uint8_t{0});
      CHECK(found(bad).everything);
    }
  }
  SUBCASE("a sector as it was before it was full") {
    const Bytes empty(mark_sector);
    Bytes bad = good;
    MarkFile other;
    REQUIRE(other.make(folder.path, 4, 99, 0, 300) == 0);
    REQUIRE(other.add(some_marks(0, 20)) == 0);
    Bytes early = bytes_of(other.path());
    std::copy_n(early.begin(), mark_sector, bad.begin());
    CHECK(found(bad).everything);
  }
  SUBCASE("sectors that changed places") {
    Bytes bad = good;
    std::swap_ranges(bad.begin(), bad.begin() + mark_sector, bad.begin() + 2 * mark_sector);
    CHECK(found(bad).everything);
  }
  SUBCASE("cut, anywhere") {
    for (size_t size = 0; size < good.size(); size += 97) {
      CHECK(found(Bytes(good.begin(), good.begin() + long(size))).everything);
    }
  }
  SUBCASE("not there, or no file") {
    CHECK(read_marks(folder.at("none"), 3).everything);
    mkdir(folder.at("marks-9").c_str(), 0755);
    CHECK(read_marks(folder.at("marks-9"), 9).everything);
  }
}

TEST_CASE("marks file: a write that fails adds nothing, and the next one may succeed") {
  const Scratch folder;
  MarkFile file;
  REQUIRE(file.make(folder.path, 3, 99, 0, 20000) == 0);
  const auto first = some_marks(0, 2300);
  REQUIRE(file.add(first) == 0);
  // A write across the end of what the limit on file sizes allows.
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit small{9 * 4096, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const int wrote = file.add(some_marks(5000, 10));
  REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(wrote == EFBIG);
  CHECK(file.used() == first.size());
  CHECK(read_marks(file.path(), 3).marks == first);
  REQUIRE(file.add(some_marks(9000, 100)) == 0);
  const MarkFileContent content = read_marks(file.path(), 3);
  CHECK_FALSE(content.everything);
  CHECK(has_all(content, first));
  CHECK(has_all(content, some_marks(9000, 100)));
}

TEST_CASE("marks file: the folder's generations are listed in order") {
  const Scratch folder;
  CHECK(list_marks(folder.at("none")).value.empty());
  for (const char* name : {"marks-10", "marks-9", "marks-9.new", "marks-", "marks-x", "super"}) {
    put_bytes(folder.at(name), {});
  }
  CHECK(list_marks(folder.path).value == std::vector<uint64_t>{9, 10});
  put_bytes(folder.at("file"), {});
  CHECK(list_marks(folder.at("file")).error == ENOTDIR);
}
