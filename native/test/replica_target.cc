// The target of a resync: real frames, a real journal, real files; the source follows a script.

#include <sys/resource.h>

#include <csignal>

#include "test/replica_rejoin.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

constexpr uint64_t run = 77;

/** Both have everything up to here. */
void together(Returned& target, Source& source, size_t changes) {
  REQUIRE(target.start() == 0);
  REQUIRE(source.call(target));
  source.change(changes);
  source.flush();
  const Lsn last = source.stream.tail.lsn;
  REQUIRE(source.await([&] { return source.ack.durable >= last; }));
  source.hang_up();
  // Everything in the files: a picture of them is one of this moment.
  REQUIRE(target.receiver->stop().ok());
  target.kill();
  CHECK(target.start() == 0);
}

/** The other went on alone, and begins to bring this one back. */
void begin(Returned& target, Source& source, size_t changes) {
  source.change(changes);
  source.epochs.push_back({2, source.base.lsn, 1, 1});
  source.stream.epoch = 2;
  REQUIRE(source.call(target));
  source.begin_resync(run);
  REQUIRE(source.await([&] { return source.ready == run; }));
}

void end(Returned& target, Source& source) {
  REQUIRE(source.settle());
  source.synced(run);
  source.flush();
  REQUIRE(source.await([&] { return source.whole == run; }));
  CHECK(source.whole_at == source.stream.tail.lsn);
  const SuperState state = target.on_disk();
  CHECK(state.state == DiskState::in_sync);
  CHECK(state.checkpoint.tail.lsn == source.stream.tail.lsn);
  CHECK(target.receiver->status().state == DiskState::in_sync);
  for (const char* name : {"undo", "origin", "reports"}) CHECK_FALSE(target.has(name));
}

/** Nothing but what both sides have: also after the replay of another process. */
void check_equal(Returned& target, Source& source) {
  REQUIRE(target.receiver->stop().ok());
  CHECK(target.differences(source.history) == "");
  REQUIRE(target.start() == 0);
  REQUIRE(target.receiver->stop().ok());
  CHECK(target.differences(source.history) == "");
}

/** In the middle of a resync, what the root's names say was applied. How much was reported of it.
 */
uint64_t reported(Returned& target, Source& source) {
  together(target, source, 0);
  begin(target, source, 60);
  source.state_listing(1);
  source.flush();
  const Lsn last = source.stream.tail.lsn;
  REQUIRE(source.await([&] { return source.ack.applied >= last; }));
  CHECK(source.missing > 0);
  return source.missing;
}

/** On a new connection of a source that has heard of everything up to `last`, nothing is told. */
void check_heard(Returned& target, Source& source, Lsn last) {
  source.hang_up();
  source.missing = 0;
  REQUIRE(source.call(target, last));
  source.resume();
  source.state_inode(1);
  source.flush();
  const Lsn next = source.stream.tail.lsn;
  REQUIRE(source.await([&] { return source.ack.applied >= next; }));
  CHECK(source.missing == 0);
  end(target, source);
  source.hang_up();
  check_equal(target, source);
}

}  // namespace

TEST_CASE("target: what is dirty is stated, and both are one again") {
  if (skipped()) return;
  Source source(1, {});
  Returned target(source.history);
  together(target, source, 60);
  const Tail before = source.stream.tail;
  begin(target, source, 40);
  SuperState state = target.on_disk();
  CHECK(state.state == DiskState::inconsistent);
  CHECK(state.resync == run);
  CHECK(state.base.lsn == before.lsn);
  CHECK(state.base.chain == before.chain);
  CHECK(static_cast<DiskState>(state.base_state) == DiskState::in_sync);
  CHECK(state.checkpoint.cursor == 0);
  CHECK(state.checkpoint.tail.lsn == source.stream.tail.lsn);
  CHECK(target.has("undo"));
  CHECK(target.events.await("resync state=started run=77 kind=dirty"));
  source.state_everything();
  end(target, source);
  CHECK(target.events.await("insync run=77"));
  state = target.on_disk();
  REQUIRE(state.history_size == 3);
  CHECK(state.history[1].epoch == 2);
  CHECK(state.history[1].alone == 1);
  // From `synced` on the source acknowledges nothing alone.
  CHECK(state.history[2].alone == 0);
  CHECK(state.history[2].first == source.stream.tail.lsn - 1);
  // It goes on as ever, and forgives nothing.
  source.change(30);
  source.flush();
  const Lsn last = source.stream.tail.lsn;
  REQUIRE(source.await([&] { return source.ack.durable >= last; }));
  source.hang_up();
  check_equal(target, source);
}

TEST_CASE("target: what more it may have had is said until it is in sync, and no longer") {
  if (skipped()) return;
  Source source(4, {});
  Returned target(source.history);
  together(target, source, 40);
  REQUIRE(target.receiver->stop().ok());
  target.kill();
  target.options.unfit = target.options.marks_lost = true;
  REQUIRE(target.start() == 0);
  begin(target, source, 20);
  CHECK((source.welcome.flags & welcome_marks_lost) != 0);
  source.hang_up();
  REQUIRE(source.call(target));
  CHECK((source.welcome.flags & welcome_marks_lost) != 0);
  source.resume();
  source.state_everything();
  end(target, source);
  source.hang_up();
  // It is what its source is: no reason to compare it once more.
  REQUIRE(source.call(target));
  CHECK((source.welcome.flags & welcome_marks_lost) == 0);
  source.hang_up();
  check_equal(target, source);
}

TEST_CASE("target: changes and statements in any order, processes that are killed in between") {
  if (skipped()) return;
  for (uint64_t seed = 1; seed <= 12; seed++) {
    CAPTURE(seed);
    Source source(seed, {});
    Returned target(source.history);
    together(target, source, 40);
    begin(target, source, 30);
    unsigned lost = 0;
    for (int round = 0; round < 6; round++) {
      if (round == 3) source.state_everything();
      for (unsigned i = source.history.below(12); i > 0; i--) {
        source.change(source.history.below(3));
        auto at = source.history.nodes.begin();
        std::advance(at, source.history.below(static_cast<unsigned>(source.history.nodes.size())));
        source.state(at->first);
      }
      source.flush();
      if (source.history.below(2) == 0) continue;
      const Lsn heard = source.ack.applied;
      if (source.history.below(3) == 0) {
        source.hang_up();
      } else {
        target.kill();
        REQUIRE(target.start() == 0);
      }
      lost++;
      REQUIRE(source.call(target, heard));
      CHECK(source.welcome.resync == run);
      CHECK(static_cast<DiskState>(source.welcome.state) == DiskState::inconsistent);
      CHECK(source.welcome.base_lsn == 40);
      source.resume();
    }
    end(target, source);
    source.hang_up();
    check_equal(target, source);
  }
}

TEST_CASE("target: what it lacks it reports until the source has heard of it") {
  if (skipped()) return;
  Source source(5, {});
  Returned target(source.history);
  const uint64_t told = reported(target, source);
  const Lsn last = source.stream.tail.lsn;
  // A source that does not know it any more, and a target that has a checkpoint behind it.
  target.kill();
  REQUIRE(target.start() == 0);
  REQUIRE(source.call(target, 0));
  source.resume();
  source.missing = 0;
  source.lacks.clear();
  source.lacking_names.clear();
  REQUIRE(source.await([&] { return source.ack.applied >= last; }));
  CHECK(source.missing >= told);
  // One that does.
  check_heard(target, source, last);
}

TEST_CASE("target: what an earlier process was heard to report, another one reports again") {
  if (skipped()) return;
  Source source(5, {});
  Returned target(source.history);
  const uint64_t told = reported(target, source);
  const Lsn last = source.stream.tail.lsn;
  // After a loss of power it may lack more than it did when it applied this for the first time.
  target.kill();
  REQUIRE(target.start() == 0);
  while (target.receiver->status().applied < last) std::this_thread::yield();
  source.missing = 0;
  REQUIRE(source.call(target, last));
  source.resume();
  REQUIRE(source.await([&] { return source.ack.applied >= last; }));
  CHECK(source.missing >= told);
  // From then on it counts what was heard.
  check_heard(target, source, last);
}

TEST_CASE("target: killed right behind the end of the resync, it ends it by itself") {
  if (skipped()) return;
  for (uint64_t seed = 1; seed <= 6; seed++) {
    CAPTURE(seed);
    Source source(seed, {});
    Returned target(source.history);
    together(target, source, 30);
    begin(target, source, 30);
    source.state_everything();
    REQUIRE(source.settle());
    source.synced(run);
    // What follows was acknowledged: it must not be lost, whatever comes of the end.
    source.change(20);
    source.flush();
    const Lsn last = source.stream.tail.lsn;
    REQUIRE(source.await([&] { return source.ack.durable >= last; }));
    source.hang_up();
    target.kill();
    if (seed % 2 == 0) {
      // It is made primary instead.
      target.open_files();
      const Result<Tail> end =
          apply_journal(target.life->tree, target.life->ids, *target.super, target.options.folder,
                        target.options.journal_bytes, target.events);
      REQUIRE(end.ok());
      CHECK(end.value.lsn == last);
      CHECK(target.differences(source.history) == "");
      CHECK(target.on_disk().state == DiskState::in_sync);
      continue;
    }
    REQUIRE(target.start() == 0);
    REQUIRE(target.receiver->stop().ok());
    CHECK(target.on_disk().state == DiskState::in_sync);
    CHECK(target.on_disk().history_size == 3);
    CHECK(target.differences(source.history) == "");
    REQUIRE(target.start() == 0);
    REQUIRE(source.call(target));
    CHECK(source.welcome.resync == 0);
    CHECK(static_cast<DiskState>(source.welcome.state) == DiskState::in_sync);
    CHECK(source.welcome.durable == last);
  }
}

TEST_CASE("target: the source dies in the middle: back to what it was") {
  if (skipped()) return;
  Faults skipping;
  skipping.undo_skipped = true;
  const Faults* const both[] = {nullptr, &skipping};
  for (const Faults* faults : both) {
    int wrong = 0;
    for (uint64_t seed = 1; seed <= 6; seed++) {
      CAPTURE(seed);
      Source source(seed, {});
      Returned target(source.history);
      together(target, source, 50);
      const History then = source.history;
      const Lsn at = source.stream.tail.lsn;
      REQUIRE(target.start(faults) == 0);
      begin(target, source, 30);
      source.change(10);
      source.state_everything();
      source.change(10);
      source.flush();
      const Lsn last = source.stream.tail.lsn;
      REQUIRE(source.await([&] { return source.ack.applied >= last; }));
      target.kill();
      REQUIRE(target.start(faults) == 0);
      target.retire();
      // Without the end of the resync in the journal it cannot go on from there.
      const std::string& folder = target.options.folder;
      const uint64_t bytes = target.options.journal_bytes;
      Life& life = *target.life;
      CHECK(apply_journal(life.tree, life.ids, *target.super, folder, bytes, target.events).error ==
            EUCLEAN);
      const Result<Tail> back =
          take_back(life.tree, life.ids, *target.super, folder, bytes, target.events);
      if (faults != nullptr) {
        wrong += !back.ok() || target.differences(then) != "" ? 1 : 0;
        continue;
      }
      REQUIRE(back.ok());
      CHECK(back.value.lsn == at);
      CHECK(target.differences(then) == "");
      const SuperState state = target.on_disk();
      CHECK(state.state == DiskState::outdated);
      CHECK(state.resync == 0);
      CHECK(target.events.await("took_back epoch=1 lsn=50"));
      for (const char* name : {"undo", "origin", "reports"}) CHECK_FALSE(target.has(name));
      // And it can be brought back again.
      REQUIRE(target.start() == 0);
      REQUIRE(source.call(target));
      CHECK(source.welcome.durable == at);
      CHECK(source.welcome.resync == 0);
      source.begin_resync(run + 1);
      REQUIRE(source.await([&] { return source.ready == run + 1; }));
      source.state_everything();
      REQUIRE(source.settle());
      source.synced(run + 1);
      source.flush();
      REQUIRE(source.await([&] { return source.whole == run + 1; }));
      source.hang_up();
      check_equal(target, source);
    }
    CHECK((wrong > 0) == (faults != nullptr));
  }
}

TEST_CASE("target: taking back that was cut short is begun again") {
  if (skipped()) return;
  Source source(9, {});
  Returned target(source.history);
  together(target, source, 50);
  const History then = source.history;
  begin(target, source, 30);
  source.state_everything();
  REQUIRE(source.settle());
  target.kill();
  // What it says first; the rest had not come.
  target.change_super([](SuperState& state) { state.resync = 0; });
  REQUIRE(target.start() == 0);
  CHECK(target.on_disk().state == DiskState::outdated);
  CHECK(target.events.count("took_back") == 1);
  REQUIRE(target.receiver->stop().ok());
  CHECK(target.differences(then) == "");
}

TEST_CASE("target: the journal wraps, several times") {
  if (skipped()) return;
  Source source(3, {});
  Returned target(source.history);
  together(target, source, 30);
  begin(target, source, 20);
  source.state_everything();
  REQUIRE(source.settle());
  FileId file = 0;
  for (const auto& [id, node] : source.history.nodes) {
    if (S_ISREG(node.mode) && node.links > 0) file = id;
  }
  REQUIRE(file != 0);
  Node& node = source.history.nodes.at(file);
  for (int i = 0; i < 40; i++) {
    node.content.assign(900'000, static_cast<char>('a' + i % 26));
    source.state(file);
    source.flush();
    const Lsn last = source.stream.tail.lsn;
    REQUIRE(source.await([&] { return source.ack.durable >= last; }));
  }
  CHECK(target.on_disk().checkpoint.cursor > 2 * min_journal);
  target.kill();
  REQUIRE(target.start() == 0);
  REQUIRE(source.call(target, source.ack.applied));
  source.resume();
  end(target, source);
  source.hang_up();
  check_equal(target, source);
}

TEST_CASE("target: no room for the undo log: it says so, and is what it was") {
  if (skipped()) return;
  Source source(3, {});
  Returned target(source.history);
  together(target, source, 30);
  const History then = source.history;
  FileId file = 0;
  for (const auto& [id, node] : source.history.nodes) {
    if (S_ISREG(node.mode) && node.links > 0) file = id;
  }
  REQUIRE(file != 0);
  begin(target, source, 0);
  // No file may become larger than the journal is.
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit small{min_journal, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  bool left = false;
  for (int i = 0; i < 40 && !left; i++) {
    // Each time in another place: what is in the log already is not written again.
    const WriteBody body{static_cast<uint64_t>(i) * 200'000, {}};
    const std::string data(800'000, static_cast<char>('a' + i % 26));
    test::ResyncStream one;
    one.put(Kind::write, file, &body, sizeof body, data);
    for (size_t k = 0; k < one.size(); k++) {
      Record record;
      REQUIRE(parse_record(one.raw(k), record) == ParseStatus::ok);
      const iovec part{const_cast<uint8_t*>(one.raw(k).data()) + sizeof(RecordHead),
                       record.head.payload_size};
      source.out.push_back(source.stream.record(record.kind, 0, record.head.file, {&part, 1}));
    }
    source.flush();
    const Lsn last = source.stream.tail.lsn;
    left = !source.await([&] { return source.ack.applied >= last; });
  }
  REQUIRE(left);
  CHECK(source.left.reason == static_cast<uint32_t>(Leave::apply));
  CHECK(source.left.error == EFBIG);
  CHECK(target.events.await("local_failed errno=27"));
  CHECK(target.events.await("took_back epoch=1 lsn=30"));
  REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(target.on_disk().state == DiskState::outdated);
  CHECK(target.receiver->status().failed);
  CHECK_FALSE(source.call(target));  // not before it is opened again
  REQUIRE(target.start() == 0);
  REQUIRE(source.call(target));
  CHECK(source.welcome.durable == 30);
  source.hang_up();
  REQUIRE(target.receiver->stop().ok());
  CHECK(target.differences(then) == "");
}
