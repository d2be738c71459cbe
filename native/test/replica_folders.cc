// Folders that a replay would have to move below themselves.

#include <doctest/doctest.h>

#include "replica/applier.h"
#include "test/replica_place.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

constexpr FileId d = 100, p = 101, a = 102, b = 103, c = 104, x = 105;

/**
 * At the checkpoint: a/p, c/b and g, which is `d`. Afterwards d is in p and c in d; `a`, where p
 * is, was in b in the meantime, as c/b/f.
 */
struct Folders : Place {
  Folders() {
    put_folder(1, "a", a);
    put_folder(a, "p", p);
    put_folder(1, "c", c);
    put_folder(c, "b", b);
    put_folder(1, "g", d);
  }
  /** Record 0 to 5 of what follows the checkpoint, in order or again. */
  std::string change(int n) {
    switch (n) {
      case 0:
        return link(p, "h", x);
      case 1:
        return move(a, 1, "a", b, "f");
      case 2:
        return unlink(p, "h", x);
      case 3:
        return move(d, 1, "g", p, "h");
      case 4:
        return move(a, b, "f", 1, "h");
      default:
        return move(c, 1, "c", d, "c");
    }
  }
  void replay(int end) {
    begin(ApplyMode::replay);
    for (int n = 0; n < end; n++) REQUIRE(change(n) == "");
  }
  void is_at_the_end() {
    REQUIRE(changes->end_replay() == 0);
    CHECK(there("h/p/h/c/b"));
    CHECK(!there("h/p/h/c/b/f"));
    for (const char* gone : {"a", "c", "g", ".holdfast"}) CHECK(!there(gone));
    for (const FileId id : {d, p, a, b, c}) CHECK(flags(id) == 0);
    CHECK(mtime("h/p") == some_time.seconds);
    CHECK(mtime("h/p/h") == some_time.seconds);
  }
  time_t mtime(const std::string& name) const {
    struct stat now;
    REQUIRE(stat(at(name).c_str(), &now) == 0);
    return now.st_mtim.tv_sec;
  }
};

constexpr int all = 6;

}  // namespace

TEST_CASE("folders: one that has come above its new parent has its place at the end") {
  if (skipped()) return;
  Folders at;
  at.put(1, "x", x, "");
  for (int n = 0; n < all; n++) REQUIRE(at.change(n) == "");
  REQUIRE(at.changes->flush_times() == 0);
  at.replay(4);
  // Its parent is below it as long as `a` is where record 1 put it.
  CHECK(at.there(".holdfast/x0/c/b/f/p"));
  CHECK(at.changes->waits());
  REQUIRE(at.change(4) == "");
  REQUIRE(at.change(5) == "");
  CHECK(at.changes->waits());
  at.is_at_the_end();
  CHECK(!at.changes->waits());
}

TEST_CASE("folders: a replay that is cut short while one waits is begun again") {
  if (skipped()) return;
  for (int cut = 0; cut <= all; cut++) {
    CAPTURE(cut);
    Folders at;
    at.put(1, "x", x, "");
    for (int n = 0; n < all; n++) REQUIRE(at.change(n) == "");
    for (int again = all; again >= cut; again--) at.replay(again);
    at.replay(all);
    at.is_at_the_end();
  }
}

TEST_CASE("folders: a replay does not begin again behind the record that made one wait") {
  if (skipped()) return;
  Folders at;
  at.put(1, "x", x, "");
  const Lsn first = at.tail.lsn;
  const size_t before = at.said.size();
  for (int n = 0; n < all; n++) REQUIRE(at.change(n) == "");
  at.begin(ApplyMode::replay);
  Sink sink;
  Applier applier(at.life->tree, at.life->ids, {}, sink);
  JournalPoint point;
  point.tail.lsn = first;
  REQUIRE(applier.start(point, ApplyMode::replay) == 0);
  std::vector<Lsn> saved;
  for (size_t n = 0; n < all; n++) {
    const Bytes& record = at.said[before + n];
    Batch batch;
    batch.records = record;
    batch.end.tail.lsn = first + n + 1;
    REQUIRE(applier.submit(std::move(batch)));
    REQUIRE(applier.drain());
    saved.push_back(applier.checkpoint().value.tail.lsn - first);
  }
  // The fourth makes it wait.
  CHECK(saved == std::vector<Lsn>{1, 2, 3, 3, 3, 3});
  REQUIRE(applier.end_replay());
  REQUIRE(applier.drain());
  CHECK(applier.checkpoint().value.tail.lsn == first + all);
  CHECK(at.there("h/p/h/c/b"));
}

TEST_CASE("folders: one that waits is moved by a later record, or goes") {
  if (skipped()) return;
  for (const bool goes : {false, true}) {
    CAPTURE(goes);
    Folders at;
    at.put(1, "x", x, "");
    const auto rest = [&] {
      REQUIRE(at.move(c, d, "c", 1, "c") == "");
      if (goes) {
        UnlinkBody body{p, some_time, 1, 1};
        char name[] = "h";
        REQUIRE(at.apply(Kind::unlink, d, {{&body, sizeof body}, {name, 1}}, flag_last_name) == "");
      } else {
        REQUIRE(at.move(d, p, "h", b, "n") == "");
      }
    };
    for (int n = 0; n < all; n++) REQUIRE(at.change(n) == "");
    at.replay(all);
    CHECK(at.changes->waits());
    rest();
    CHECK(!at.changes->waits());
    REQUIRE(at.changes->end_replay() == 0);
    CHECK(at.there("c/b/n") == !goes);
    CHECK(at.there("h/p"));
    for (const char* gone : {"h/p/h", ".holdfast"}) CHECK(!at.there(gone));
  }
}

TEST_CASE("folders: in a resync it is told, and stays for the source to state again") {
  if (skipped()) return;
  Folders at;
  at.put(1, "x", x, "");
  at.begin(ApplyMode::resync);
  REQUIRE(at.move(c, 1, "c", p, "c") == "");
  at.missing.clear();
  REQUIRE(at.entry(b, "new", a, S_IFDIR) == "");
  REQUIRE(at.missing.size() == 1);
  CHECK(at.missing[0].file == a);
  CHECK(at.missing[0].parent == b);
  CHECK(at.missing[0].name == "new");
  CHECK(at.there("a/p/c/b"));
  CHECK(!at.changes->waits());
}
