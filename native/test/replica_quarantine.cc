#include <doctest/doctest.h>

#include "replica/quarantine.h"
#include "replica/undo_paths.h"
#include "test/replica_target.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

constexpr FileId old_file = (FileId{1} << 40) | 7;
constexpr FileId old_folder = (FileId{1} << 40) | 8;
constexpr FileId own_file = (FileId{2} << 40) | 1;
constexpr FileId own_folder = (FileId{2} << 40) | 2;
constexpr int64_t noon = 1'769'860'800;  // 2026-01-31 12:00:00 UTC
const std::string folder = ".holdfast-quarantine/20260131-120000-epoch5/";

struct Ending {
  World world;
  Target target{world.copy};
  ResyncStream stream;
  UndoPaths paths{target.life.tree, target.life.ids};
  QuarantineOptions options{5, noon, FileId{2} << 40, false};
  uint64_t files = 0;

  void know(const std::string& path, FileId id) { world.know(target.life, path, id); }
  void gone(FileId parent, const std::string& name) {
    EntryBody body{};
    body.parent = parent;
    body.parent_mtime = {1'700'000'000, 5, 0};
    body.name_size = static_cast<uint32_t>(name.size());
    stream.put(Kind::entry, parent, &body, sizeof body, name);
  }
  void unlinked(FileId file, const std::string& name) {
    UnlinkBody body{};
    body.parent = 1;
    body.parent_mtime = {1'700'000'000, 5, 0};
    body.name_size = static_cast<uint32_t>(name.size());
    const iovec parts[] = {{&body, sizeof body}, {const_cast<char*>(name.data()), name.size()}};
    stream.add(Kind::unlink, flag_last_name, file, parts);
  }
  /** Applies all of it, and ends the resync. */
  std::string run(std::vector<Overwritten> overwritten = {}) {
    target.changes.begin(ApplyMode::resync);
    const std::vector<Record> records = stream.records(0, stream.size());
    REQUIRE(target.undo.before(records) == 0);
    for (const Record& record : records) REQUIRE(target.changes.apply(record) == 0);
    REQUIRE(target.undo.paths(paths) == 0);
    Quarantine quarantine(target.life.tree, target.life.ids, paths, options);
    REQUIRE(target.changes.end_resync([&](const Orphan& orphan, bool& kept) {
      return quarantine.keep(orphan, kept);
    }) == 0);
    REQUIRE(quarantine.overwritten(std::move(overwritten)) == 0);
    REQUIRE(quarantine.finish() == 0);
    files = quarantine.files();
    return quarantine.folder();
  }
  bool there(const std::string& path) const { return access(world.at(path).c_str(), F_OK) == 0; }
};

}  // namespace

TEST_CASE("quarantine: what only this server had is kept, what the source removed is not") {
  if (skipped()) return;
  Ending end;
  end.world.write("old", "the source removed it");
  end.world.write("shared", "the source has it elsewhere");
  end.world.write("own", "mine");
  end.world.write("foreign", "nobody's");
  end.know("old", old_file);
  end.know("own", own_file);
  end.world.write("unlinked", "x");
  end.know("unlinked", own_file + 7);
  const timespec times[2] = {{0, UTIME_OMIT}, {1'600'000'000, 123}};
  REQUIRE(utimensat(AT_FDCWD, end.world.at("own").c_str(), times, 0) == 0);
  for (const char* name : {"old", "own", "foreign"}) end.gone(1, name);
  end.unlinked(own_file + 7, "unlinked");
  CHECK(end.run() == "20260131-120000-epoch5");
  CHECK(end.files == 2);
  CHECK(end.world.read(folder + "files/own") == "mine");
  CHECK(end.world.read(folder + "files/foreign") == "nobody's");
  const std::string manifest = end.world.read(folder + "manifest.jsonl");
  const std::string own = R"({"path":"own","stored":"files/own","type":"file","size":4,)"
                          R"("mtime":"1600000000.000000123","reason":"rolled_back"})";
  CHECK(manifest.find(own) != std::string::npos);
  CHECK(manifest.find(R"("path":"foreign","stored":"files/foreign")") != std::string::npos);
  CHECK(manifest.find(R"("reason":"foreign"})") != std::string::npos);
  CHECK(manifest.find("old") == std::string::npos);
  CHECK(!end.there(".holdfast"));
  CHECK(!end.there("old"));
  // The root's mtime is what the last record said, and no record can speak of what is kept.
  struct stat now;
  REQUIRE(stat(end.world.at("").c_str(), &now) == 0);
  CHECK(now.st_mtim.tv_sec == 1'700'000'000);
  CHECK(now.st_mtim.tv_nsec == 5);
  IdEntry entry;
  CHECK(!end.target.life.ids.get(own_file, entry));
}

TEST_CASE("quarantine: a directory goes with all that is in it, under the name that it had") {
  if (skipped()) return;
  Ending end;
  REQUIRE(mkdir(end.world.at("d").c_str(), 0755) == 0);
  REQUIRE(mkdir(end.world.at("d/e f").c_str(), 0755) == 0);
  const std::string odd = "d/e f/new\nline\xff\"";
  end.world.write(odd, "deep");
  REQUIRE(symlink("nowhere", end.world.at("d/link").c_str()) == 0);
  end.know("d", old_folder);
  end.know("d/e f", own_folder);
  end.know(odd, own_file);
  end.gone(old_folder, "e f");
  end.gone(old_folder, "link");
  CHECK(!end.run().empty());
  CHECK(end.files == 3);
  CHECK(end.world.read(folder + "files/" + odd) == "deep");
  const std::string manifest = end.world.read(folder + "manifest.jsonl");
  CHECK(manifest.find(R"("path":"d/e%20f","stored":"files/d/e%20f","type":"folder")") !=
        std::string::npos);
  CHECK(manifest.find(R"("path":"d/e%20f/new%0Aline%FF%22")") != std::string::npos);
  CHECK(manifest.find(R"("path":"d/link","stored":"files/d/link","type":"link")") !=
        std::string::npos);
  CHECK(end.there("d"));
}

TEST_CASE("quarantine: another file of the same path, and one that is in the way of a folder") {
  if (skipped()) return;
  Ending end;
  end.world.write("x", "first");
  end.know("x", own_file);
  end.gone(1, "x");
  end.run();
  end.stream = ResyncStream();
  end.world.write("x", "second");
  end.know("x", own_file + 1);
  end.gone(1, "x");
  REQUIRE(end.target.undo.discard() == 0);
  REQUIRE(end.target.undo.open(end.world.copy.file("undo")).ok());
  end.run();
  CHECK(end.world.read(folder + "files/x") == "first");
  CHECK(end.world.read(folder + "files/x~1") == "second");
}

TEST_CASE("quarantine: what was written over is noted with its ranges, and stays") {
  if (skipped()) return;
  Ending end;
  REQUIRE(mkdir(end.world.at("d").c_str(), 0755) == 0);
  end.world.write("d/f", "0123456789");
  end.know("d", old_folder);
  end.know("d/f", old_file);
  CHECK(!end.run({{old_file, {{0, 4096}, {8192, 12288}}}, {own_file, {{0, 1}}}}).empty());
  CHECK(end.files == 0);
  CHECK(end.world.read("d/f") == "0123456789");
  const std::string manifest = end.world.read(folder + "manifest.jsonl");
  CHECK(manifest.starts_with(R"({"path":"d/f","type":"file","size":10,)"));
  CHECK(manifest.ends_with(R"("reason":"overwritten","ranges":[[0,4096],[8192,12288]]})"
                           "\n"));
}

TEST_CASE("quarantine: of nothing there is no folder") {
  if (skipped()) return;
  Ending end;
  end.world.write("old", "the source removed it");
  end.know("old", old_file);
  end.gone(1, "old");
  CHECK(end.run().empty());
  CHECK(!end.there(".holdfast-quarantine"));
}
