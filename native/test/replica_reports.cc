#include "replica/reports.h"
#include "test/replica_world.h"

using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

Bytes body(uint8_t value, size_t size) {
  return Bytes(size, value);
}

/** LSNs of those that are still to be told. */
std::vector<Lsn> told(Reports& reports) {
  std::vector<Lsn> out;
  Report report;
  while (reports.next(report)) out.push_back(report.lsn);
  return out;
}

using Lsns = std::vector<Lsn>;

}  // namespace

TEST_CASE("reports: each connection is told what was not heard, in order") {
  Scratch folder;
  Reports reports;
  REQUIRE(reports.open(folder.at("reports")).ok());
  for (Lsn lsn = 1; lsn <= 5; lsn++) reports.add(lsn, Frame::missing, body(1, 20));
  CHECK(told(reports) == Lsns{1, 2, 3, 4, 5});
  CHECK(told(reports).empty());
  reports.begin(3);
  CHECK(told(reports) == Lsns{4, 5});
  reports.add(6, Frame::differs, body(2, 48));
  CHECK(reports.more());
  Report report;
  REQUIRE(reports.next(report));
  CHECK(report.type == Frame::differs);
  CHECK(report.body == body(2, 48));
  CHECK(reports.kept() == 3);
  CHECK(reports.count() == 6);
  CHECK_FALSE(reports.take_lost());
}

TEST_CASE("reports: what was saved is there after a kill, whatever a torn write left") {
  Scratch folder;
  const std::string path = folder.at("reports");
  {
    Reports reports;
    CHECK_FALSE(reports.open(path).value);
    for (Lsn lsn = 1; lsn <= 3; lsn++) reports.add(lsn, Frame::missing, body(uint8_t(lsn), 21));
    REQUIRE(reports.save() == 0);
    reports.add(4, Frame::missing, body(4, 9));
    REQUIRE(reports.save() == 0);
    reports.add(5, Frame::missing, body(5, 9));  // not saved
  }
  Bytes file = bytes_of(path);
  for (size_t cut : {size_t{0}, size_t{1}, size_t{8}, size_t{30}}) {
    put_bytes(path, Bytes(file.begin(), file.end() - static_cast<long>(cut)));
    Reports again;
    REQUIRE(again.open(path).value);
    CHECK(again.kept() == (cut == 0 ? 4 : 3));
    // It goes on behind what is whole.
    again.add(9, Frame::differs, body(9, 48));
    REQUIRE(again.save() == 0);
    Reports third;
    REQUIRE(third.open(path).ok());
    CHECK(told(third) == (cut == 0 ? Lsns{1, 2, 3, 4, 9} : Lsns{1, 2, 3, 9}));
  }
  put_bytes(path, Bytes(40, 7));
  Reports damaged;
  CHECK(damaged.open(path).error == EBADMSG);
}

TEST_CASE("reports: bounded; what the source may not have heard is said to be lost") {
  Scratch folder;
  Reports reports(64 * 1024);
  REQUIRE(reports.open(folder.at("reports")).ok());
  for (Lsn lsn = 1; lsn <= 100; lsn++) {
    reports.add(lsn, Frame::missing, body(1, 4000));
    told(reports);
    REQUIRE(reports.save() == 0);
  }
  CHECK(reports.kept() < 20);
  CHECK_FALSE(reports.take_lost());  // all of them were told
  const Lsn first = 101 - reports.kept();
  reports.begin(first);
  CHECK_FALSE(reports.take_lost());
  reports.begin(first - 2);
  CHECK(reports.take_lost());
  CHECK_FALSE(reports.take_lost());
  CHECK(bytes_of(folder.at("reports")).size() < 3 * 64 * 1024);
  // Also by a process that only knows the file.
  Reports again(64 * 1024);
  REQUIRE(again.open(folder.at("reports")).ok());
  again.begin(1);
  CHECK(again.take_lost());
  // Nobody was told at all.
  Reports silent(64 * 1024);
  REQUIRE(silent.open(folder.at("other")).ok());
  for (Lsn lsn = 1; lsn <= 100; lsn++) silent.add(lsn, Frame::missing, body(1, 4000));
  CHECK(silent.take_lost());
  REQUIRE(silent.clear() == 0);
  CHECK(silent.kept() == 0);
}
