#include <doctest/doctest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "replica/undo_file.h"
#include "test/replica_target.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

constexpr FileId data_id = (FileId{1} << 40) | 7;
constexpr FileId folder_a = (FileId{1} << 40) | 8;
constexpr FileId folder_b = (FileId{1} << 40) | 9;

struct Bytes {
  ResyncStream stream;
  void write(uint64_t offset, const std::string& data) {
    const WriteBody body{offset, {1'700'000'000, 0, 0}};
    stream.put(Kind::write, data_id, &body, sizeof body, data);
  }
  void size(uint64_t to) {
    AttributesBody body{};
    body.mask = attribute_size;
    body.size = to;
    stream.put(Kind::attributes, data_id, &body, sizeof body);
  }
  void entry(FileId parent, const std::string& name, FileId file, uint32_t type) {
    EntryBody body{};
    body.parent = parent;
    body.parent_mtime = {1'700'000'000, 0, 0};
    body.name_size = static_cast<uint32_t>(name.size());
    body.type = type;
    stream.put(Kind::entry, type == 0 ? parent : file, &body, sizeof body, name);
  }
};

/** One batch: saved, then applied. */
void batch(Target& target, const Bytes& bytes, size_t first, size_t end) {
  const std::vector<Record> records = bytes.stream.records(first, end);
  REQUIRE(target.undo.before(records) == 0);
  for (const Record& record : records) REQUIRE(target.changes.apply(record) == 0);
}

}  // namespace

TEST_CASE("undo: what was saved is not saved again, and what was not there is not saved") {
  if (skipped()) return;
  World world;
  world.write("f", std::string(100'000, 'a'));
  Target target(world.copy);
  world.know(target.life, "f", data_id);
  target.changes.begin(ApplyMode::resync);
  Bytes bytes;
  bytes.write(0, std::string(50'000, 'b'));
  bytes.write(10'000, std::string(20'000, 'c'));
  bytes.write(100'000, std::string(500'000, 'd'));
  bytes.size(70'000);
  batch(target, bytes, 0, 1);
  const uint64_t first = target.undo.status().bytes;
  CHECK(first > 50'000);
  batch(target, bytes, 1, 2);
  CHECK(target.undo.status().bytes == first);
  batch(target, bytes, 2, 3);
  // Behind the old end there was nothing; before it at most one page is new.
  CHECK(target.undo.status().bytes <= first + 2 * undo_grain);
  batch(target, bytes, 3, 4);
  CHECK(target.undo.status().bytes < first + 70'000);
  REQUIRE(target.undo.take_back(target.changes) == 0);
  CHECK(world.read("f") == std::string(100'000, 'a'));
}

TEST_CASE("undo: holes are saved as holes, and reading for it leaves the access time") {
  if (skipped()) return;
  World world;
  world.write("f", "begin");
  REQUIRE(truncate(world.at("f").c_str(), off_t{1} << 32) == 0);
  Target target(world.copy);
  world.know(target.life, "f", data_id);
  const timespec times[2] = {{1'000'000'000, 0}, {1'500'000'000, 0}};
  REQUIRE(utimensat(AT_FDCWD, world.at("f").c_str(), times, 0) == 0);
  Bytes bytes;
  bytes.size(0);
  target.changes.begin(ApplyMode::resync);
  batch(target, bytes, 0, 1);
  CHECK(target.undo.status().bytes <= 4 * undo_grain);
  struct stat now;
  REQUIRE(stat(world.at("f").c_str(), &now) == 0);
  CHECK(now.st_atim.tv_sec == 1'000'000'000);
  REQUIRE(target.undo.take_back(target.changes) == 0);
  REQUIRE(stat(world.at("f").c_str(), &now) == 0);
  CHECK(now.st_size == off_t{1} << 32);
  CHECK(now.st_mtim.tv_sec == 1'500'000'000);
  CHECK(now.st_blocks < 100);
  const Fd file(open(world.at("f").c_str(), O_RDONLY));
  char begin[6] = {};
  CHECK(pread(file.get(), begin, 5, 0) == 5);
  CHECK(std::string(begin) == "begin");
}

TEST_CASE("undo: directories that went into one another come apart again") {
  if (skipped()) return;
  World world;
  // a/b becomes b/x, in batches of which the first has already saved the name "x".
  REQUIRE(mkdir(world.at("a").c_str(), 0755) == 0);
  REQUIRE(mkdir(world.at("a/b").c_str(), 0755) == 0);
  Target target(world.copy);
  world.know(target.life, "a", folder_a);
  world.know(target.life, "a/b", folder_b);
  const Picture first(target.life);
  target.changes.begin(ApplyMode::resync);
  Bytes bytes;
  bytes.entry(folder_b, "x", 0, 0);
  bytes.entry(1, "c", folder_a, S_IFDIR);
  bytes.entry(1, "b", folder_b, S_IFDIR);
  bytes.entry(folder_b, "x", folder_a, S_IFDIR);
  for (size_t i = 0; i < 4; i++) batch(target, bytes, i, i + 1);
  REQUIRE(access(world.at("b/x").c_str(), F_OK) == 0);
  REQUIRE(target.undo.take_back(target.changes) == 0);
  CHECK(first.difference(Picture(target.life)) == "");
}

TEST_CASE("undo: a full disk is reported, and what is saved later counts") {
  if (skipped()) return;
  World world;
  world.write("f", std::string(3'000'000, 'a'));
  Target target(world.copy);
  world.know(target.life, "f", data_id);
  target.changes.begin(ApplyMode::resync);
  Bytes bytes;
  bytes.write(0, std::string(10'000, 'b'));
  bytes.size(0);
  batch(target, bytes, 0, 1);
  const uint64_t before = target.undo.status().bytes;
  struct rlimit old, low;
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  low = old;
  low.rlim_cur = 1'000'000;
  signal(SIGXFSZ, SIG_IGN);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &low) == 0);
  CHECK(target.undo.before(bytes.stream.records(1, 2)) == EFBIG);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &old) == 0);
  signal(SIGXFSZ, SIG_DFL);
  CHECK(target.undo.status().bytes == before);
  batch(target, bytes, 1, 2);
  REQUIRE(target.undo.take_back(target.changes) == 0);
  CHECK(world.read("f") == std::string(3'000'000, 'a'));
}

TEST_CASE("undo: a torn last batch was never applied; damage before the end is said") {
  if (skipped()) return;
  World world;
  world.write("f", std::string(100'000, 'a'));
  Bytes bytes;
  bytes.write(0, std::string(10'000, 'b'));
  bytes.write(50'000, std::string(10'000, 'c'));
  uint64_t first = 0, second = 0;
  {
    Target target(world.copy);
    world.know(target.life, "f", data_id);
    target.changes.begin(ApplyMode::resync);
    batch(target, bytes, 0, 1);
    first = target.undo.status().bytes;
    REQUIRE(target.undo.before(bytes.stream.records(1, 2)) == 0);
    second = target.undo.status().bytes;
  }
  const std::string log = world.copy.file("undo");
  const Fd file(open(log.c_str(), O_RDWR));
  const auto flip = [&](uint64_t at) {
    char byte = 0;
    REQUIRE(pread(file.get(), &byte, 1, static_cast<off_t>(at)) == 1);
    byte = static_cast<char>(byte ^ 0x40);
    REQUIRE(pwrite(file.get(), &byte, 1, static_cast<off_t>(at)) == 1);
  };
  Life life(world.copy);
  flip(200);
  CHECK(Undo(life.tree, life.ids).open(log).error == EBADMSG);
  flip(200);
  flip(second - undo_grain + 100);
  {
    Undo undo(life.tree, life.ids);
    REQUIRE(undo.open(log).ok());
    CHECK(undo.status().batches == 1);
    CHECK(undo.status().bytes == first);
  }
  REQUIRE(ftruncate(file.get(), static_cast<off_t>(first) + 100) == 0);
  Changes changes(life.tree, life.ids, nullptr);
  Undo undo(life.tree, life.ids);
  REQUIRE(undo.open(log).ok());
  REQUIRE(undo.take_back(changes) == 0);
  CHECK(world.read("f") == std::string(100'000, 'a'));
  REQUIRE(undo.discard() == 0);
  CHECK(access(log.c_str(), F_OK) != 0);
}
