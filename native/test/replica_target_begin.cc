// How a resync begins on its target, and what it does not begin on.

#include <sys/stat.h>

#include "test/replica_rejoin.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

constexpr uint64_t run = 5;

bool left_with(Source& source, Leave reason) {
  while (source.take()) {
  }
  return source.left.reason == static_cast<uint32_t>(reason);
}

}  // namespace

TEST_CASE("target: a copy that only lacks what the ring has is outdated until the end is there") {
  if (skipped()) return;
  Source source(2, {});
  Returned target(source.history);
  REQUIRE(target.start() == 0);
  source.epochs = {{1, 0, 1, 1}};
  REQUIRE(source.call(target));
  const ResyncBody body{run, 0, 0, 0, static_cast<uint32_t>(Rejoin::catch_up), 0};
  source.channel->post(Frame::resync, body);
  REQUIRE(source.await([&] { return source.ready == run; }));
  CHECK(target.on_disk().state == DiskState::outdated);
  CHECK_FALSE(target.has("undo"));
  source.change(40);
  source.flush();
  Lsn last = source.stream.tail.lsn;
  REQUIRE(source.await([&] { return source.ack.applied >= last; }));
  CHECK(target.on_disk().state == DiskState::outdated);
  source.synced(run);
  source.change(10);
  source.flush();
  REQUIRE(source.await([&] { return source.whole == run; }));
  CHECK(source.whole_at == last + 1);
  SuperState state = target.on_disk();
  CHECK(state.state == DiskState::in_sync);
  CHECK(state.history_size == 2);
  // Left alone again: an end that is applied once more says nothing about that.
  last = source.stream.tail.lsn;
  REQUIRE(source.await([&] { return source.ack.durable >= last; }));
  source.hang_up();
  target.kill();
  target.change_super([&](SuperState& changed) {
    changed.state = DiskState::outdated;
    changed.base = source.stream.tail;
    changed.checkpoint = {};
  });
  REQUIRE(target.start() == 0);
  REQUIRE(target.receiver->stop().ok());
  CHECK(target.on_disk().state == DiskState::outdated);
  CHECK(target.differences(source.history) == "");
}

TEST_CASE("target: an outdated copy is in sync with a primary that waited for it") {
  if (skipped()) return;
  Source source(2, {});
  Returned target(source.history);
  target.change_super([](SuperState& state) { state.state = DiskState::outdated; });
  REQUIRE(target.start() == 0);
  source.change(20);
  REQUIRE(source.call(target));
  source.flush();
  REQUIRE(source.await([&] { return source.ack.durable >= 20; }));
  CHECK(target.events.await("insync run=0 lsn=20"));
  CHECK(target.on_disk().state == DiskState::in_sync);
}

TEST_CASE("target: a primary that was not stopped in order says what it may have changed") {
  if (skipped()) return;
  Source source(6, {});
  Returned target(source.history);
  target.change_super([](SuperState& state) {
    state.role = 1;
    state.clean = 0;
  });
  const std::string folder = target.options.folder;
  {
    Life life(Copy(source.history), "none");
    Marks marks(life.ids, {});
    REQUIRE(marks.open(folder).ok());
    MarkSet set;
    set.data(21, 0, 3 * mark_region);
    set.inode(22);
    Marks::Guard guard;
    REQUIRE(marks.guard(set, guard) == 0);
  }
  target.unfit = true;
  REQUIRE(target.start() == 0);
  REQUIRE(source.call(target));
  CHECK((source.welcome.flags & welcome_was_primary) != 0);
  CHECK(target.on_disk().role == 1);  // until it is made equal
  source.begin_resync(run, Rejoin::roll_back);
  REQUIRE(source.await([&] { return source.ready == run; }));
  CHECK_FALSE(source.everything);
  REQUIRE(source.touched.size() == 4);
  CHECK(source.touched[0].file == 21);
  CHECK(source.touched[3].file == 22);
  // Lost before the source had all of it: told again.
  target.kill();
  REQUIRE(target.start() == 0);
  REQUIRE(source.call(target));
  CHECK((source.welcome.flags & welcome_was_primary) != 0);
  source.begin_resync(run + 1, Rejoin::roll_back);
  REQUIRE(source.await([&] { return source.ready == run + 1; }));
  CHECK(source.touched.size() == 4);
  source.state_everything();
  REQUIRE(source.settle());
  source.synced(run + 1);
  source.flush();
  REQUIRE(source.await([&] { return source.whole == run + 1; }));
  CHECK(target.events.await("rolled_back"));
  CHECK(target.on_disk().role == 2);
  const Result<Marked> marked = Marks::read(folder);
  REQUIRE(marked.ok());
  CHECK(marked.value.generations == 0);
}

TEST_CASE("target: without its marks, everything may have changed") {
  if (skipped()) return;
  Source source(6, {});
  Returned target(source.history);
  target.change_super([](SuperState& state) {
    state.role = 1;
    state.clean = 0;
  });
  target.unfit = true;
  REQUIRE(target.start() == 0);
  REQUIRE(source.call(target));
  source.begin_resync(run, Rejoin::compare);
  REQUIRE(source.await([&] { return source.ready == run; }));
  CHECK(source.everything);
}

TEST_CASE("target: a resync that cannot begin leaves the copy as it is") {
  if (skipped()) return;
  Source source(7, {});
  Returned target(source.history);
  REQUIRE(target.start() == 0);
  REQUIRE(source.call(target));
  source.change(10);
  source.flush();
  REQUIRE(source.await([&] { return source.ack.durable >= 10; }));
  source.hang_up();
  REQUIRE(mkdir(target.state_file("undo").c_str(), 0700) == 0);
  source.change(5);
  REQUIRE(source.call(target));
  source.begin_resync(run);
  CHECK(left_with(source, Leave::apply));
  CHECK(source.left.error == EISDIR);
  CHECK(target.on_disk().state == DiskState::in_sync);
  CHECK(target.on_disk().checkpoint.tail.lsn == 10);
  // Not for good.
  REQUIRE(rmdir(target.state_file("undo").c_str()) == 0);
  REQUIRE(source.call(target));
  CHECK(source.welcome.durable == 10);
  source.begin_resync(run + 1);
  CHECK(source.await([&] { return source.ready == run + 1; }));
}

TEST_CASE("target: frames of a resync that make no sense") {
  if (skipped()) return;
  Source source(8, {});
  Returned target(source.history);
  REQUIRE(target.start() == 0);
  const auto refused = [&](const ResyncBody& body) {
    REQUIRE(source.call(target));
    source.channel->post(Frame::resync, body);
    return left_with(source, Leave::protocol);
  };
  const auto dirty = static_cast<uint32_t>(Rejoin::dirty);
  CHECK(refused({0, 0, 1, 0, dirty, 0}));    // no number
  CHECK(refused({run, 0, 9, 0, dirty, 0}));  // of an epoch to come
  CHECK(refused({run, 3, 1, 9, static_cast<uint32_t>(Rejoin::catch_up), 0}));
  // After records, or before it is ready.
  REQUIRE(source.call(target));
  source.change(1);
  source.flush();
  source.channel->post(Frame::resync, ResyncBody{run, 1, 1, 0, dirty, 0});
  CHECK(left_with(source, Leave::protocol));
  // The end of another run.
  REQUIRE(source.call(target));
  source.begin_resync(run);
  REQUIRE(source.await([&] { return source.ready == run; }));
  source.synced(run + 1);
  source.flush();
  CHECK(left_with(source, Leave::protocol));
  CHECK(target.on_disk().state == DiskState::inconsistent);
}
