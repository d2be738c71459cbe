#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "replica_files.h"
#include "replica_peer.h"

using namespace holdfast::replica;
using namespace holdfast::replica::test;
using holdfast::boot_ns;
using holdfast::ns_per_ms;
using holdfast::ns_per_s;

namespace {

/** A primary that can bring a peer back. */
struct Returning {
  explicit Returning(uint64_t ring_size = 4 * min_ring) : primary(ring_size) {
    SuperState state = primary.super.state();
    state.epoch = 1;
    state.state = DiskState::in_sync;
    add_epoch(state, {1, 0, 1, 0});
    REQUIRE(primary.super.save(state) == 0);
  }
  void start(const Peer& peer) {
    LinkOptions options = primary.options(peer.address());
    options.rejoining = &files;
    REQUIRE(primary.link.start(options).ok());
    primary.link.serving();
  }
  /** Writes `bytes` in records of 64 KiB; the LSN of the last. */
  Lsn write(uint64_t bytes) {
    Lsn last = 0;
    for (uint64_t done = 0; done < bytes; done += 65'536) last = primary.add(65'536);
    return last;
  }
  /** Durable on the peer, and gone from the ring. */
  int settle(Lsn lsn) {
    const int error = primary.sync(lsn);
    while (error == 0 && primary.ring.used() > 0) std::this_thread::yield();
    return error;
  }
  bool await_sync() { return primary.events.await("insync"); }

  Files files;
  Primary primary;
};

uint32_t number(Rejoin what) {
  return static_cast<uint32_t>(what);
}

}  // namespace

TEST_CASE("rejoin: alone, back by the ring, and in sync by two steps") {
  Peer peer;
  Returning one;
  one.start(peer);
  REQUIRE(one.primary.events.await("peer state=connected"));
  REQUIRE(one.settle(one.write(1 << 20)) == 0);
  const Lsn before = peer.durable();
  one.primary.link.cut(100'000);
  REQUIRE(one.primary.link.alone(2) == 0);
  CHECK_FALSE(one.files.follows_.load());
  const Lsn during = one.write(1 << 20);
  CHECK(one.primary.sync(during) == 0);
  CHECK(peer.durable() == before);
  CHECK(one.primary.super.state().base.lsn == before);
  CHECK(one.primary.super.state().base_state == 1);
  one.primary.link.cut(0);
  REQUIRE(one.await_sync());
  CHECK(peer.await_whole());
  CHECK(peer.resync().rejoin == number(Rejoin::catch_up));
  CHECK(peer.resync().lsn == before);
  CHECK(peer.wrong() == 0);
  CHECK(one.files.follows_.load());
  const SuperState& state = one.primary.super.state();
  CHECK(state.required_peer == 1);
  CHECK(state.base_state == 0);
  REQUIRE(state.history_size == 3);
  CHECK(state.history[1].alone == 1);
  CHECK(state.history[2].epoch == 2);
  CHECK(state.history[2].first == during);
  CHECK(state.history[2].alone == 0);
  // From now on nothing is acknowledged without it.
  const Lsn after = one.write(65'536);
  CHECK(one.primary.sync(after) == 0);
  CHECK(peer.durable() >= after);
  CHECK(one.primary.link.stop(5000));
}

TEST_CASE("rejoin: what left the ring is dirty, and what is in it too") {
  Peer peer;
  Returning one(min_ring * 2);
  one.start(peer);
  REQUIRE(one.primary.events.await("peer state=connected"));
  const Lsn had = one.write(1 << 20);
  REQUIRE(one.settle(had) == 0);
  one.primary.link.cut(100'000);
  REQUIRE(one.primary.link.alone(2) == 0);
  const Lsn last = one.write(32 << 20);
  CHECK_FALSE(one.files.dirty().empty());
  one.primary.link.cut(0);
  REQUIRE(one.await_sync());
  CHECK(peer.resync().rejoin == number(Rejoin::dirty));
  CHECK(peer.resync().lsn == last);
  CHECK(peer.wrong() == 0);
  const std::set<Lsn> stated = one.files.stated();
  CHECK(stated.size() == last - had);
  CHECK(*stated.begin() == had + 1);
  CHECK(*stated.rbegin() == last);
  CHECK(one.files.own_.load() == 0);
}

TEST_CASE("rejoin: cut off while it catches up, it lacks only what came since") {
  Peer peer;
  Returning one(min_ring * 2);
  one.files.states_.store(false);
  one.start(peer);
  REQUIRE(one.primary.events.await("peer state=connected"));
  REQUIRE(one.settle(one.write(1 << 20)) == 0);
  one.primary.link.cut(100'000);
  REQUIRE(one.primary.link.alone(2) == 0);
  one.write(1 << 20);
  one.primary.link.cut(0);
  while (one.files.starts_.load() == 0) std::this_thread::yield();
  CHECK(peer.resync().rejoin == number(Rejoin::catch_up));
  const Lsn had = one.write(1 << 20);
  one.primary.link.push();
  REQUIRE(peer.await_received(had));
  one.primary.link.cut(100'000);
  REQUIRE(one.primary.events.await("resync state=interrupted"));
  // The peer may have more: an acknowledgement went with the connection.
  const Lsn durable = one.primary.link.status().durable;
  const Lsn last = one.write(32 << 20);
  one.files.states_.store(true);
  one.primary.link.cut(0);
  REQUIRE(one.await_sync());
  CHECK(peer.resync().rejoin == number(Rejoin::dirty));
  CHECK(one.files.own_.load() == 0);
  CHECK(one.files.stated().size() == last - durable);
}

TEST_CASE("rejoin: while it runs the application waits for nobody; after it for the peer") {
  Peer peer;
  Returning one;
  one.files.states_.store(false);
  one.start(peer);
  REQUIRE(one.primary.events.await("peer state=connected"));
  REQUIRE(one.settle(one.write(65'536)) == 0);
  one.primary.link.cut(100'000);
  REQUIRE(one.primary.link.alone(2) == 0);
  one.primary.link.cut(0);
  REQUIRE(one.primary.events.await("resync state=started"));
  while (one.files.starts_.load() == 0) std::this_thread::yield();
  peer.acks.store(Peer::Acks::none);
  CHECK(one.primary.sync(one.write(65'536)) == 0);
  one.files.whole_();
  while (one.primary.link.status().alone) std::this_thread::yield();
  CHECK(one.primary.super.state().required_peer == 1);
  Call call;
  CHECK_FALSE(one.primary.link.sync(one.write(65'536), call.waiter()));
  CHECK_FALSE(call.called());
  CHECK_FALSE(one.primary.link.status().in_sync);
  // The peer dies with the end of the resync on its way: it gets it again, and the wait goes on.
  peer.acks.store(Peer::Acks::at_barrier);
  peer.crash();
  REQUIRE(one.await_sync());
  CHECK(call.await() == 0);
  CHECK(peer.resyncs() == 1);
  CHECK(one.primary.link.status().in_sync);
}

TEST_CASE("rejoin: a lost connection resumes while the ring reaches back") {
  Peer peer;
  Returning one;
  one.files.states_.store(false);
  one.start(peer);
  REQUIRE(one.primary.events.await("peer state=connected"));
  one.primary.link.cut(100'000);
  REQUIRE(one.primary.link.alone(2) == 0);
  one.primary.link.cut(0);
  while (one.files.starts_.load() == 0) std::this_thread::yield();
  const uint64_t run = one.files.run_.load();
  const Lsn sent = one.write(1 << 20);
  one.primary.link.push();
  REQUIRE(peer.await_received(sent));
  peer.crash();
  REQUIRE(one.primary.events.await("resync state=interrupted"));
  while (one.files.starts_.load() < 2) std::this_thread::yield();
  CHECK(one.files.run_.load() == run);
  CHECK(one.primary.link.status().run == run);
  CHECK(peer.resyncs() == 1);
  one.files.whole_();
  REQUIRE(one.await_sync());
  CHECK(one.files.own_.load() == 0);
  CHECK(peer.wrong() == 0);
}

TEST_CASE("rejoin: a lost connection is another round of the same when the ring has gone on") {
  Peer peer;
  Returning one(min_ring * 2);
  one.files.states_.store(false);
  one.start(peer);
  REQUIRE(one.primary.events.await("peer state=connected"));
  one.primary.link.cut(100'000);
  REQUIRE(one.primary.link.alone(2) == 0);
  one.primary.link.cut(0);
  while (one.files.starts_.load() == 0) std::this_thread::yield();
  const uint64_t run = one.files.run_.load();
  one.primary.link.cut(100'000);
  REQUIRE(one.primary.events.await("resync state=interrupted"));
  const Lsn last = one.write(32 << 20);
  one.files.states_.store(true);
  one.primary.link.cut(0);
  REQUIRE(one.await_sync());
  CHECK(peer.resyncs() == 2);
  CHECK(peer.resync().run == run);
  CHECK(peer.resync().rejoin == number(Rejoin::dirty));
  CHECK(one.files.stated().size() == last);
  CHECK(one.files.own_.load() == 0);
}

namespace {

/** What is stated to a peer that went back to where it was before the resync. */
int own_marks_after_take_back(bool planted) {
  Peer peer;
  Returning one(min_ring * 2);
  one.primary.faults.bitmap_cleared_early = planted;
  one.files.states_.store(false);
  one.start(peer);
  REQUIRE(one.primary.events.await("peer state=connected"));
  REQUIRE(one.settle(one.write(65'536)) == 0);
  one.primary.link.cut(100'000);
  REQUIRE(one.primary.link.alone(2) == 0);
  one.write(32 << 20);
  one.primary.link.cut(0);
  while (one.files.starts_.load() == 0) std::this_thread::yield();
  const uint64_t run = one.files.run_.load();
  CHECK(one.files.dirty().empty());
  one.files.states_.store(true);
  peer.take_back();
  REQUIRE(one.await_sync());
  CHECK(peer.resync().run != run);
  CHECK(peer.resync().rejoin == number(Rejoin::dirty));
  return one.files.own_.load();
}

}  // namespace

TEST_CASE("rejoin: what was stated counts only when the copy is whole") {
  CHECK(own_marks_after_take_back(false) == 1);
}

TEST_CASE("rejoin: a planted bug that clears what is dirty too early is seen") {
  CHECK(own_marks_after_take_back(true) == 0);
}

TEST_CASE("rejoin: a fork is refused, with what each side has, and nothing is changed") {
  Peer peer;
  peer.history = {{1, 0, 1, 0}, {3, 0, 2, 1}};
  peer.welcome = [](WelcomeBody& body) {
    body.durable = 7;
    body.epoch = 3;
  };
  Returning one;
  LinkOptions options = one.primary.options(peer.address());
  options.rejoining = &one.files;
  REQUIRE(one.primary.link.start(options).ok());
  REQUIRE(one.primary.link.alone(4) == 0);
  one.write(5 * 65'536);
  one.primary.link.serving();
  CHECK(one.primary.events.await(
      "peer state=refused reason=fork common=0 epoch=1 source_more=5 target_more=7"));
  CHECK(one.primary.events.count("peer state=refused reason=fork") == 1);
  CHECK(peer.resyncs() == 0);
  CHECK(one.files.starts_.load() == 0);
}

TEST_CASE("rejoin: an outdated copy that the ring has all for counts by two steps too") {
  Peer peer;
  peer.history = {{1, 0, 1, 0}};
  peer.welcome = [](WelcomeBody& body) {
    if (body.resync == 0) body.state = static_cast<uint32_t>(DiskState::outdated);
  };
  Returning one;
  one.files.states_.store(false);
  one.start(peer);
  while (one.files.starts_.load() == 0) std::this_thread::yield();
  CHECK(peer.resync().rejoin == number(Rejoin::catch_up));
  Call call;
  CHECK_FALSE(one.primary.link.sync(one.write(65'536), call.waiter()));
  one.files.whole_();
  REQUIRE(one.await_sync());
  CHECK(call.await() == 0);
}

TEST_CASE("rejoin: what only the peer changed is dirty before anything is stated") {
  Peer peer;
  peer.history = {{1, 0, 1, 0}};
  peer.touched = {{70, 3, 1}, {71, 0, 2}, {72, 0, 3}};
  peer.welcome = [](WelcomeBody& body) {
    if (body.resync == 0 && body.durable == 0) {
      body.flags = welcome_was_primary;
      body.epoch = 1;
    }
  };
  Returning one;
  SuperState state = one.primary.super.state();
  state.epoch = 2;
  add_epoch(state, {2, 0, 1, 0});
  REQUIRE(one.primary.super.save(state) == 0);
  one.start(peer);
  REQUIRE(one.await_sync());
  CHECK(peer.resync().rejoin == number(Rejoin::roll_back));
  CHECK(one.files.marks_.load() == 3);
}

TEST_CASE("rejoin: not alone, nothing is acknowledged until the peer is whole") {
  Peer peer;
  peer.history = {{1, 0, 1, 0}};
  Returning one;
  SuperState state = one.primary.super.state();
  state.base_state = 1;
  REQUIRE(one.primary.super.save(state) == 0);
  one.primary.ring.reset({unclean_jump, 1, 99});
  one.files.states_.store(false);
  one.start(peer);
  while (one.files.starts_.load() == 0) std::this_thread::yield();
  Call call;
  CHECK_FALSE(one.primary.link.sync(one.write(65'536), call.waiter()));
  REQUIRE(peer.await_received(unclean_jump + 1));
  while (peer.durable() <= unclean_jump) std::this_thread::yield();
  CHECK_FALSE(call.called());
  one.files.whole_();
  REQUIRE(one.await_sync());
  CHECK(call.await() == 0);
  CHECK(one.primary.super.state().history_size == 1);
}

TEST_CASE("rejoin: a peer that takes nothing does not hold up a primary that is alone") {
  Peer peer;
  Returning one(min_ring * 2);
  one.files.states_.store(false);
  one.start(peer);
  REQUIRE(one.primary.events.await("peer state=connected"));
  one.primary.link.cut(100'000);
  REQUIRE(one.primary.link.alone(2) == 0);
  one.primary.link.cut(0);
  while (one.files.starts_.load() == 0) std::this_thread::yield();
  peer.deaf.store(true);
  one.write(16 << 20);
  CHECK(one.primary.events.await("resync state=interrupted"));
  peer.deaf.store(false);
  peer.crash();
  one.files.states_.store(true);
  REQUIRE(one.await_sync());
}

TEST_CASE("rejoin: alone again during a resync changes the epoch, not the connection") {
  Peer peer;
  Returning one;
  one.files.states_.store(false);
  one.start(peer);
  REQUIRE(one.primary.events.await("peer state=connected"));
  one.primary.link.cut(100'000);
  REQUIRE(one.primary.link.alone(2) == 0);
  one.primary.link.cut(0);
  while (one.files.starts_.load() == 0) std::this_thread::yield();
  const uint64_t connections = peer.connections();
  REQUIRE(one.primary.link.alone(3) == 0);
  CHECK(one.primary.sync(one.write(65'536)) == 0);
  one.files.whole_();
  REQUIRE(one.await_sync());
  CHECK(peer.connections() == connections);
  CHECK(one.primary.super.state().epoch == 3);
}

TEST_CASE("rejoin: what a stopped primary's peer lacks is dirty, and it says since when") {
  Peer peer;
  Returning one;
  one.start(peer);
  REQUIRE(one.primary.events.await("peer state=connected"));
  const Lsn had = one.write(65'536);
  REQUIRE(one.settle(had) == 0);
  Lsn since = 0;
  peer.acks.store(Peer::Acks::none);
  const Lsn last = one.write(4 * 65'536);
  CHECK_FALSE(one.primary.link.stop(10));
  CHECK_FALSE(one.primary.link.settle(since));
  CHECK(since == had);
  CHECK(one.files.dirty().size() == last - had);
}

TEST_CASE("recent times: the last whole second counts, and no other") {
  RecentTimes times;
  const int64_t second = 1000 * ns_per_s;
  CHECK(times.quantile(0.99, second) == 0);
  for (int i = 0; i < 100; i++) times.add(second + i, 1'000'000);
  CHECK(times.quantile(0.99, second + ns_per_s / 2) == 0);
  const int64_t slow = times.quantile(0.99, second + ns_per_s);
  CHECK(slow >= 1'000'000);
  CHECK(slow <= 1'250'000);
  times.add(second + ns_per_s, 50'000'000);
  CHECK(times.quantile(0.99, second + ns_per_s + 1) == slow);
  CHECK(times.quantile(0.99, second + 2 * ns_per_s) >= 50'000'000);
  CHECK(times.quantile(0.99, second + 3 * ns_per_s) == 0);
}
