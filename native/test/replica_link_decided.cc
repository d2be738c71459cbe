#include <doctest/doctest.h>

#include <cerrno>
#include <string>

#include "replica_files.h"
#include "replica_peer.h"

// A primary whose agent, and not the engine, says who is waited for (`decided`).

using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

struct Decided {
  Decided() {
    SuperState state = primary.super.state();
    state.epoch = 1;
    state.state = DiskState::in_sync;
    add_epoch(state, {1, 0, 1, 0});
    REQUIRE(primary.super.save(state) == 0);
  }
  void start(const Peer& peer) {
    LinkOptions options = primary.options(peer.address());
    options.rejoining = &files;
    options.decided = true;
    REQUIRE(primary.link.start(options).ok());
    primary.link.serving();
  }
  LinkStatus status() { return primary.link.status(); }
  void await_copy(const std::string& wanted) {
    while (status().peer_copy != wanted) std::this_thread::yield();
  }

  Files files;
  Primary primary;
};

}  // namespace

TEST_CASE("decided: a peer that failed is waited for until alone") {
  Peer peer;
  peer.acks = Peer::Acks::none;
  Decided one;
  one.start(peer);
  REQUIRE(peer.await_connection(1));
  Call sync;
  REQUIRE_FALSE(one.primary.link.sync(one.primary.add(100), sync.waiter()));
  const LeaveBody failed{ENOSPC, static_cast<uint32_t>(Leave::journal), 0};
  peer.say(Frame::leave, &failed, sizeof failed);
  CHECK(one.primary.events.await("peer state=left reason=journal errno=28"));
  // It has called again: what followed from the word is done.
  REQUIRE(peer.await_connection(2));
  CHECK_FALSE(sync.called());
  CHECK_FALSE(one.status().alone);
  CHECK(one.primary.super.state().required_peer == 1);
  REQUIRE(one.primary.link.alone(2) == 0);
  CHECK(sync.await() == 0);
}

TEST_CASE("decided: a peer that joined is told the epoch, and is waited for as before") {
  Peer peer;
  Decided one;
  one.start(peer);
  REQUIRE(one.primary.events.await("peer state=connected"));
  REQUIRE(one.primary.link.alone(2) == 0);
  REQUIRE(one.primary.events.await("insync"));
  one.await_copy("in_sync");
  CHECK(one.status().permit == 2);
  CHECK(one.primary.link.joined(1) == EINVAL);
  const uint64_t before = peer.connections();
  REQUIRE(one.primary.link.joined(3) == 0);
  CHECK(one.primary.link.joined(3) == 0);
  REQUIRE(peer.await_connection(before + 1));
  one.await_copy("in_sync");
  CHECK(one.status().permit == 2);
  const Lsn lsn = one.primary.add(100);
  CHECK(one.primary.sync(lsn) == 0);
  CHECK(peer.durable() >= lsn);
  CHECK(peer.wrong() == 0);
  CHECK(one.primary.ring.last().epoch == 3);
  CHECK(one.primary.super.state().epoch == 3);
  CHECK(one.primary.super.state().required_peer == 1);
  const SuperState& state = one.primary.super.state();
  CHECK(state.history[state.history_size - 1].epoch == 3);
  CHECK(state.history[state.history_size - 1].alone == 0);
}

TEST_CASE("decided: in sync is what the peer says of its copy, not what it was sent") {
  Peer peer;
  peer.never_whole = true;
  Decided one;
  one.start(peer);
  REQUIRE(one.primary.events.await("peer state=connected"));
  CHECK(std::string(one.status().peer_copy) == "in_sync");
  REQUIRE(one.primary.link.alone(2) == 0);
  CHECK(std::string(one.status().peer_copy) != "in_sync");
  // Nothing is acknowledged without it any more, and it has what ends the resync.
  while (one.status().alone) std::this_thread::yield();
  const Lsn lsn = one.primary.add(100);
  CHECK(one.primary.sync(lsn) == 0);
  CHECK(peer.durable() >= lsn);
  CHECK(std::string(one.status().peer_copy) == "caught_up");
  one.primary.link.stop(0);
  CHECK(std::string(one.status().peer_copy) == "none");
  CHECK(!one.status().alone);
}
