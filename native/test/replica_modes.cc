// What each statement does in normal running, in a replay and in a resync.

#include <doctest/doctest.h>

#include "replica/scan.h"
#include "test/replica_place.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

constexpr FileId f = 100, g = 101, d = 102, e = 103;

std::string item(const std::string& name, const std::string& value) {
  const XattrItem head{static_cast<uint32_t>(name.size()), static_cast<uint32_t>(value.size())};
  return std::string(reinterpret_cast<const char*>(&head), sizeof head) + name + value;
}

}  // namespace

TEST_CASE("statements: a file has no name until its name comes") {
  if (skipped()) return;
  for (const ApplyMode mode : {ApplyMode::normal, ApplyMode::replay, ApplyMode::resync}) {
    CAPTURE(static_cast<int>(mode));
    Place p(mode);
    REQUIRE(p.inode(f, S_IFREG | 0640, 3) == "");
    REQUIRE(p.write(f, "whole") == "");
    CHECK(p.flags(f) == (id_unlinked | id_nameless));
    CHECK(p.text(".holdfast/" + Orphanage::name_of(f)) == "whole");
    REQUIRE(p.link(1, "a", f) == "");
    REQUIRE(p.changes->flush_times() == 0);
    CHECK(p.text("a") == "whole");
    CHECK(p.links("a") == 1);
    CHECK(p.flags(f) == 0);
    // Nothing of it is left; in normal running not even the folder.
    if (mode == ApplyMode::normal) CHECK(!p.there(".holdfast"));
    REQUIRE(p.changes->end_replay() == 0);
    REQUIRE(p.changes->end_resync(nullptr) == 0);
    CHECK(!p.there(".holdfast"));
    CHECK(p.text("a") == "whole");
  }
}

TEST_CASE("statements: a file without a name takes another one's place, in one step") {
  if (skipped()) return;
  for (const ApplyMode mode : {ApplyMode::normal, ApplyMode::replay, ApplyMode::resync}) {
    CAPTURE(static_cast<int>(mode));
    Place p(mode);
    p.put(1, "a", g, "old");
    REQUIRE(p.inode(f, S_IFREG | 0640) == "");
    REQUIRE(p.write(f, "new") == "");
    CHECK(p.text("a") == "old");
    REQUIRE(p.replace(1, "a", f, g) == "");
    CHECK(p.text("a") == "new");
    CHECK(p.flags(f) == 0);
    CHECK((p.flags(g) & id_unlinked) != 0);
    REQUIRE(p.changes->flush_times() == 0);
    REQUIRE(p.changes->end_replay() == 0);
    REQUIRE(p.changes->end_resync(nullptr) == 0);
    CHECK(!p.there(".holdfast"));
    p.changes->checkpointed(p.tail.lsn);
    IdEntry gone;
    CHECK(!p.life->ids.get(g, gone));
    CHECK(p.text("a") == "new");
  }
}

TEST_CASE("statements: what has no name yet survives a replay, and gets it twice if need be") {
  if (skipped()) return;
  Place p;
  REQUIRE(p.inode(f, S_IFREG | 0640) == "");
  REQUIRE(p.write(f, "whole") == "");
  p.begin(ApplyMode::replay);
  REQUIRE(p.inode(f, S_IFREG | 0640) == "");
  REQUIRE(p.write(f, "whole") == "");
  REQUIRE(p.changes->end_replay() == 0);
  p.changes->checkpointed(p.tail.lsn);
  CHECK(p.flags(f) == (id_unlinked | id_nameless));
  // Named twice in one folder, by a process that was killed in between: it is the same name.
  REQUIRE(linkat(AT_FDCWD, p.at(".holdfast/" + Orphanage::name_of(f)).c_str(), AT_FDCWD,
                 p.at("a").c_str(), 0) == 0);
  p.begin(ApplyMode::replay);
  REQUIRE(p.link(1, "a", f) == "");
  REQUIRE(p.link(1, "a", f) == "");
  REQUIRE(p.changes->end_replay() == 0);
  CHECK(p.text("a") == "whole");
  CHECK(p.links("a") == 1);
  CHECK(!p.there(".holdfast"));
}

TEST_CASE("statements: a file that was withdrawn can be replicated again, with its id") {
  if (skipped()) return;
  for (const ApplyMode mode : {ApplyMode::normal, ApplyMode::replay, ApplyMode::resync}) {
    CAPTURE(static_cast<int>(mode));
    Place p(mode);
    p.put(1, "a", f, "first");
    REQUIRE(p.unlink(1, "a", f) == "");
    const Lsn removed = p.tail.lsn;
    REQUIRE(p.inode(f, S_IFREG | 0644) == "");
    p.changes->checkpointed(removed);
    REQUIRE(p.write(f, "again") == "");
    REQUIRE(p.link(1, "b", f) == "");
    p.changes->checkpointed(p.tail.lsn);
    REQUIRE(p.write(f, "AGAIN") == "");
    REQUIRE(p.changes->flush_times() == 0);
    REQUIRE(p.changes->end_replay() == 0);
    REQUIRE(p.changes->end_resync(nullptr) == 0);
    CHECK(p.text("b") == "AGAIN");
    CHECK(!p.there(".holdfast"));
  }
}

TEST_CASE("statements: what is in a folder that goes is asked about as well") {
  if (skipped()) return;
  Place p(ApplyMode::resync);
  p.put_folder(1, "d", d);
  p.put_folder(d, "e", e);
  p.put(e, "own", f, "text");
  p.put(d, "removed", g, "");
  REQUIRE(p.unlink(d, "removed", g) == "");
  UnlinkBody body{1, some_time, 1, 1};
  char name[] = "d";
  REQUIRE(p.apply(Kind::unlink, d, {{&body, sizeof body}, {name, 1}}, flag_last_name) == "");
  std::vector<std::pair<FileId, bool>> asked;
  REQUIRE(p.changes->end_resync([&](const Orphan& orphan, bool& kept) {
    asked.emplace_back(orphan.file, orphan.removed);
    kept = orphan.file == f;
    if (!kept) return 0;
    return renameat(orphan.directory, orphan.name, AT_FDCWD, p.at("kept").c_str()) == 0 ? 0 : errno;
  }) == 0);
  std::sort(asked.begin(), asked.end());
  CHECK(asked ==
        std::vector<std::pair<FileId, bool>>{{f, false}, {g, true}, {d, true}, {e, false}});
  CHECK(p.text("kept") == "text");
  CHECK(!p.there(".holdfast"));
}

TEST_CASE("statements: a server that becomes primary drops what has no name yet") {
  if (skipped()) return;
  Place p;
  REQUIRE(p.inode(f, S_IFREG | 0640) == "");
  p.put(1, "a", g, "stays");
  CHECK(p.there(".holdfast"));
  REQUIRE(drop_nameless(p.life->tree, p.life->ids) == 0);
  CHECK(!p.there(".holdfast"));
  CHECK(p.text("a") == "stays");
}

TEST_CASE("statements: an entry makes a name be that file, or nothing") {
  if (skipped()) return;
  for (const ApplyMode mode : {ApplyMode::normal, ApplyMode::replay, ApplyMode::resync}) {
    CAPTURE(static_cast<int>(mode));
    Place p(mode);
    p.put(1, "a", f, "f");
    p.put(1, "b", g, "g");
    p.put_folder(1, "d", d);
    REQUIRE(p.entry(1, "b", f) == "");
    CHECK(p.text("b") == "f");
    CHECK(p.links("b") == 2);
    REQUIRE(p.entry(d, "x", f) == "");
    REQUIRE(p.entry(1, "a", 0) == "");
    CHECK(!p.there("a"));
    REQUIRE(p.entry(1, "a", 0) == "");
    p.put_folder(1, "e", e);
    REQUIRE(p.entry(e, "below", d, S_IFDIR) == "");
    CHECK(p.text("e/below/x") == "f");
    CHECK(!p.there("d"));
    REQUIRE(p.entry(1, "d", 0) == "");
    // In a resync g may be wanted yet; otherwise it is gone as soon as its record says so.
    const bool kept = p.there(".holdfast/" + Orphanage::name_of(g));
    CHECK(kept == (mode != ApplyMode::normal));
    struct stat root;
    REQUIRE(p.changes->flush_times() == 0);
    REQUIRE(stat(p.at("").c_str(), &root) == 0);
    CHECK(root.st_mtim.tv_sec == some_time.seconds);
    CHECK(p.missing.empty());
  }
}

TEST_CASE("statements: in a resync a file that lost its last name keeps its id and content") {
  if (skipped()) return;
  Place p(ApplyMode::resync);
  p.put(1, "a", f, "text");
  REQUIRE(p.unlink(1, "a", f) == "");
  CHECK(!p.there("a"));
  p.changes->checkpointed(p.tail.lsn);
  REQUIRE(p.entry(1, "b", f) == "");
  CHECK(p.text("b") == "text");
  CHECK(p.flags(f) == 0);
  REQUIRE(p.unlink(1, "b", f) == "");
  REQUIRE(p.changes->end_resync(nullptr) == 0);
  CHECK(!p.there(".holdfast"));
  p.changes->checkpointed(p.tail.lsn);
  IdEntry gone;
  CHECK(!p.life->ids.get(f, gone));
  CHECK(p.missing.empty());
}

TEST_CASE("statements: what is missing is told, and what was stated each time") {
  if (skipped()) return;
  Place p(ApplyMode::resync);
  REQUIRE(p.write(f, "x") == "");
  REQUIRE(p.write(f, "y") == "");
  REQUIRE(p.missing.size() == 1);
  CHECK(p.missing[0].file == f);
  CHECK(p.missing[0].parent == 0);
  REQUIRE(p.link(1, "a", f) == "");
  REQUIRE(p.link(1, "a", f) == "");
  REQUIRE(p.missing.size() == 3);
  CHECK(p.missing[2].parent == 1);
  CHECK(p.missing[2].name == "a");
  REQUIRE(p.entry(1, "a", f) == "");
  REQUIRE(p.entry(1, "a", f) == "");
  CHECK(p.missing.size() == 5);
  REQUIRE(p.entry(d, "a", f) == "");
  CHECK(p.missing.back().file == d);
  REQUIRE(p.listing(d, {"a"}) == "");
  REQUIRE(p.missing.size() == 7);
  CHECK(p.missing.back().file == d);
  REQUIRE(p.listing(1, {"a"}) == "");
  REQUIRE(p.missing.size() == 8);
  CHECK(p.missing.back().file == 0);
  CHECK(p.missing.back().name == "a");
  // What is made now has no content yet, unless that follows.
  REQUIRE(p.inode(g, S_IFREG | 0644, 0, {}, true, 0) == "");
  REQUIRE(p.missing.size() == 9);
  CHECK(p.missing.back().file == g);
  REQUIRE(p.inode(g, S_IFREG | 0644, 0, {}, true, 0) == "");
  // There it is.
  REQUIRE(p.inode(f, S_IFREG | 0644) == "");
  REQUIRE(p.write(f, "z") == "");
  REQUIRE(p.entry(1, "a", f) == "");
  REQUIRE(p.listing(1, {"a"}) == "");
  CHECK(p.missing.size() == 9);
  CHECK(p.text("a") == "z");
  // In a replay nobody is told; in normal running it is a failure.
  Place replay(ApplyMode::replay), normal;
  CHECK(replay.write(f, "x") == "");
  CHECK(replay.missing.empty());
  CHECK(normal.write(f, "x") != "");
  CHECK(normal.entry(1, "a", f) != "");
  CHECK(normal.listing(d, {}) != "");
}

TEST_CASE("statements: a folder that would have to go below itself is told") {
  if (skipped()) return;
  Place p(ApplyMode::resync);
  p.put_folder(1, "d", d);
  p.put_folder(d, "e", e);
  // On the source e is above d.
  REQUIRE(p.entry(e, "d", d, S_IFDIR) == "");
  REQUIRE(p.missing.size() == 1);
  CHECK(p.missing[0].file == d);
  CHECK(p.missing[0].parent == e);
  REQUIRE(p.entry(1, "e", e, S_IFDIR) == "");
  REQUIRE(p.entry(e, "d", d, S_IFDIR) == "");
  CHECK(p.missing.size() == 1);
  CHECK(p.there("e/d"));
}

TEST_CASE("statements: a foreign file is taken for the right one only when it is safe") {
  if (skipped()) return;
  Place p(ApplyMode::resync);
  p.put_foreign("a", "seed");
  p.put_foreign("b", "twice");
  REQUIRE(link(p.at("b").c_str(), p.copy.scratch.at("outside").c_str()) == 0);
  p.put_foreign("c", "no folder");
  REQUIRE(mkdir(p.at("d").c_str(), 0700) == 0);
  REQUIRE(p.listing(1, {"a", "b", "c", "d"}) == "");
  CHECK(p.missing.size() == 4);
  p.missing.clear();
  REQUIRE(p.entry(1, "a", f) == "");
  REQUIRE(p.missing.size() == 1);
  CHECK(p.missing[0].adopted);
  CHECK(p.missing[0].file == f);
  CHECK(p.text("a") == "seed");
  REQUIRE(p.write(f, "SE") == "");
  CHECK(p.text("a") == "SEed");
  REQUIRE(p.entry(1, "b", g) == "");
  CHECK(!p.missing.back().adopted);
  CHECK(!p.there("b"));
  CHECK(p.links("../outside") == 1);
  REQUIRE(p.entry(1, "c", e, S_IFDIR) == "");
  CHECK(!p.missing.back().adopted);
  REQUIRE(p.entry(1, "d", d, S_IFDIR) == "");
  CHECK(p.missing.back().adopted);
  CHECK(p.missing.back().file == d);
}

TEST_CASE("statements: a listing removes what is the mirror's, and nothing else, for good") {
  if (skipped()) return;
  Place p(ApplyMode::resync);
  p.put(1, "a", f, "f");
  p.put(1, "m", g, "local");
  p.life->ids.set_flags(g, id_local, 0);
  p.put_foreign("z", "foreign");
  REQUIRE(mkdir(p.at("lost+found").c_str(), 0700) == 0);
  REQUIRE(mkdir(p.at(".holdfast-quarantine").c_str(), 0700) == 0);
  p.put_folder(1, "d", d);
  p.put(d, "inner", e, "e");
  // A file that the source still has, with another name in what goes.
  REQUIRE(p.link(d, "other", f) == "");
  REQUIRE(p.listing(1, {"a"}) == "");
  CHECK(p.missing.empty());
  CHECK(p.text("a") == "f");
  CHECK(p.text("m") == "local");
  CHECK(p.there("lost+found"));
  CHECK(p.there(".holdfast-quarantine"));
  CHECK(!p.there("z"));
  CHECK(!p.there("d"));
  std::vector<std::pair<FileId, bool>> asked;
  REQUIRE(p.changes->end_resync([&](const Orphan& orphan, bool& kept) {
    asked.emplace_back(orphan.file, orphan.removed);
    kept = true;
    const std::string to = p.at(".holdfast-quarantine/") + std::to_string(orphan.file);
    return renameat(orphan.directory, orphan.name, AT_FDCWD, to.c_str()) == 0 ? 0 : errno;
  }) == 0);
  std::sort(asked.begin(), asked.end());
  REQUIRE(asked == std::vector<std::pair<FileId, bool>>{{0, false}, {d, false}});
  CHECK(p.text(".holdfast-quarantine/0") == "foreign");
  CHECK(p.text(".holdfast-quarantine/102/inner") == "e");
  CHECK(!p.there(".holdfast-quarantine/102/other"));
  CHECK(p.links("a") == 1);
  CHECK(!p.there(".holdfast"));
  p.changes->checkpointed(p.tail.lsn);
  IdEntry gone;
  CHECK(!p.life->ids.get(d, gone));
  CHECK(!p.life->ids.get(e, gone));
  CHECK(p.life->ids.get(f, gone));
}

TEST_CASE("statements: what a record removed is told to be so; what has no name yet stays") {
  if (skipped()) return;
  Place p(ApplyMode::resync);
  p.put(1, "a", f, "f");
  REQUIRE(p.unlink(1, "a", f) == "");
  REQUIRE(p.inode(g, S_IFREG | 0600) == "");
  size_t asked = 0;
  REQUIRE(p.changes->end_resync([&](const Orphan& orphan, bool&) {
    asked++;
    CHECK(orphan.file == f);
    CHECK(orphan.removed);
    return 0;
  }) == 0);
  CHECK(asked == 1);
  // The source is about to give it its name: it does so in normal running.
  REQUIRE(p.write(g, "late") == "");
  REQUIRE(p.link(1, "g", g) == "");
  REQUIRE(p.changes->flush_times() == 0);
  CHECK(p.text("g") == "late");
  CHECK(!p.there(".holdfast"));
}

TEST_CASE("statements: an inode is exactly so") {
  if (skipped()) return;
  Place p;
  p.put(1, "a", f, "long text");
  const auto value = [&](const char* name) {
    char buffer[100];
    const ssize_t size = getxattr(p.at("a").c_str(), name, buffer, sizeof buffer);
    return size < 0 ? std::string("none") : std::string(buffer, static_cast<size_t>(size));
  };
  for (const char* name : {"trusted.old", "trusted.same", "trusted.holdfast.own"}) {
    REQUIRE(setxattr(p.at("a").c_str(), name, "1", 1, 0) == 0);
  }
  const std::string acl = access_acl(0640);
  REQUIRE(p.inode(f, S_IFREG | 0640, 4,
                  item("trusted.new", "2") + item("trusted.same", "1") +
                      item("system.posix_acl_access", acl)) == "");
  REQUIRE(p.changes->flush_times() == 0);
  struct stat now;
  REQUIRE(stat(p.at("a").c_str(), &now) == 0);
  CHECK(now.st_mode == (S_IFREG | 0640));
  CHECK(now.st_size == 4);
  CHECK(now.st_mtim.tv_sec == some_time.seconds);
  CHECK(value("trusted.old") == "none");
  CHECK(value("trusted.new") == "2");
  CHECK(value("trusted.same") == "1");
  CHECK(value("trusted.holdfast.own") == "1");
  CHECK(value("system.posix_acl_access") == acl);
  // Without values only the names count.
  REQUIRE(p.inode(f, S_IFREG | 0600, 4, item("trusted.new", ""), false) == "");
  CHECK(value("trusted.new") == "2");
  CHECK(value("trusted.same") == "none");
  CHECK(value("system.posix_acl_access") == "none");
  REQUIRE(stat(p.at("a").c_str(), &now) == 0);
  CHECK(now.st_mode == (S_IFREG | 0600));
  InodeBody nowhere{};
  nowhere.mode = S_IFREG | 0600;
  nowhere.volume = 7;
  CHECK(p.apply(Kind::inode, 555, {{&nowhere, sizeof nowhere}}) != "");
}
