#include <doctest/doctest.h>

#include <atomic>
#include <memory>

#include "replica/ids.h"
#include "replica/marks.h"
#include "replica_scratch.h"

// Marks of a primary with distant copies: the last of them counts.

using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

constexpr FileId old_file = (FileId{1} << 40) + 100;

struct Primary {
  explicit Primary(uint32_t copies, const Faults* faults = nullptr) {
    REQUIRE(ids.open(folder.at("ids")).ok());
    // Files that were there before.
    while (ids.allocate(1) < old_file + 200) {
    }
    MarksOptions options;
    options.generation_marks = 64;
    options.copies = copies;
    options.tick_ms = 0;
    options.faults = faults;
    options.last = [this] { return last.load(); };
    options.sync = [] { return 0; };
    marks = std::make_unique<Marks>(ids, options);
    REQUIRE(marks->open(folder.path).ok());
    // One that is old.
    last = 50;
    for (uint32_t i = 0; marks->status().generations < 2; i++) {
      REQUIRE(i < 200);
      Marks::Guard guard;
      const Mark mark{old_file + i, 0, uint32_t(MarkWhat::inode)};
      REQUIRE(marks->guard(&mark, 1, guard) == 0);
    }
  }
  uint64_t left() {
    REQUIRE(marks->settle() == 0);
    return marks->status().generations;
  }

  Scratch folder;
  Ids ids;
  std::atomic<Lsn> last{0};
  std::unique_ptr<Marks> marks;
};

}  // namespace

TEST_CASE("marks: they go when the last of the copies has what they cover") {
  Primary primary(3);
  CHECK(primary.marks->has_old());
  primary.marks->peer_has(50);
  primary.marks->peer_has(50, 1);
  CHECK(primary.left() == 2);
  primary.marks->peer_has(49, 2);
  CHECK(primary.left() == 2);
  primary.marks->peer_has(50, 2);
  CHECK(primary.left() == 1);
  CHECK_FALSE(primary.marks->has_old());
}

TEST_CASE("marks: one copy that lacks something keeps them") {
  Primary primary(3);
  for (uint32_t copy = 0; copy < 3; copy++) primary.marks->peer_has(50, copy);
  primary.marks->keep(true, 0);
  primary.marks->keep(true, 2);
  CHECK(primary.left() == 2);
  primary.marks->keep(false, 0);
  CHECK(primary.left() == 2);
  primary.marks->keep(false, 2);
  CHECK(primary.left() == 1);
}

TEST_CASE("marks: a planted bug that forgets the distant copies is seen") {
  Faults faults;
  faults.marks_forget_distant = true;
  Primary primary(2, &faults);
  primary.marks->keep(true, 1);
  primary.marks->peer_has(50);
  CHECK(primary.left() == 1);
}
