#include <doctest/doctest.h>

#include <cstring>

#include "test/beat_world.h"

using namespace holdfast;
using namespace holdfast::beat;
using namespace holdfast::beat::world;

namespace {

/** What an attacker must not change: every event so far, and what the peers are thought to be. */
struct Unchanged {
  explicit Unchanged(Node& n) : node(n), events(n.events.size()), reach(n.reach(1)) {}
  bool holds() const { return node.events.size() == events && node.reach(1) == reach; }
  Node& node;
  size_t events;
  Reach reach;
};

}  // namespace

TEST_CASE("attack: forged, damaged, misdirected datagrams change counters only") {
  World world(3, 2);
  Datagram seen{};
  world.taps = [&](const Datagram& d) {
    if (d.from == 1 && d.to == 0 && d.lan == 0) seen = d;
  };
  world.run(2000 * ms);
  const Unchanged unchanged(world[0]);
  const Stats before = world[0].stats();

  Datagram forged = seen;
  forged.bytes[33]++;  // the sequence
  world.inject(forged);
  CHECK(world[0].stats().bad_mac == before.bad_mac + 1);

  Datagram shorter = seen;
  shorter.bytes.pop_back();
  world.inject(shorter);
  Datagram longer = seen;
  longer.bytes.resize(2000);
  world.inject(longer);
  CHECK(world[0].stats().malformed == before.malformed + 2);

  Datagram elsewhere = seen;
  elsewhere.lan = 1;  // recorded on one network, played on the other
  world.inject(elsewhere);
  Datagram other = seen;
  other.to = 2;  // a heartbeat for node 0 played to node 2
  world.inject(other);
  Datagram cluster = seen;
  cluster.bytes[8]++;
  world.inject(cluster);
  CHECK(world[0].stats().foreign == before.foreign + 2);
  CHECK(world[2].stats().foreign == 1);

  for (int i = 0; i < 100; i++) world.inject(seen);
  CHECK(world[0].stats().replayed == before.replayed + 100);
  CHECK(unchanged.holds());
  CHECK(world[0].stats().received == before.received);
}

TEST_CASE("attack: a recorded life of a peer, replayed after its death, does not revive it") {
  World world(2);
  std::vector<Datagram> recorded;
  world.taps = [&](const Datagram& d) {
    if (d.from == 1) recorded.push_back(d);
  };
  world.run(3000 * ms);
  world[1].dead = true;
  world.run(4000 * ms);
  REQUIRE(world[0].reach(1) == Reach::silent);
  const Unchanged unchanged(world[0]);
  const Stats before = world[0].stats();
  for (const Datagram& d : recorded) world.inject(d);
  world.run(4500 * ms);
  CHECK(unchanged.holds());
  CHECK(world[0].stats().replayed == before.replayed + recorded.size());
}

TEST_CASE("attack: datagrams of an old boot are no restart, before or after a real one") {
  World world(2);
  std::vector<Datagram> recorded;
  bool record = true;
  world.taps = [&](const Datagram& d) {
    if (record && d.from == 1) recorded.push_back(d);
  };
  world.run(3000 * ms);
  const uint64_t first = world[0].last(EventKind::peer, 1)->boot;
  record = false;
  world.boot(1, 2);
  world.run(3500 * ms);
  const uint64_t second = world[0].last(EventKind::peer, 1)->boot;
  CHECK(second != first);
  CHECK(world[0].reach(1) == Reach::both);
  // While the new boot lives: the old one changes nothing, not even what the new one is echoed.
  const Unchanged unchanged(world[0]);
  const uint64_t refused = world[0].stats().unproven;
  for (const Datagram& d : recorded) {
    world.inject(d);
    world.run(world.now + 10 * ms);
  }
  CHECK(unchanged.holds());
  CHECK(world[1].reach(0) == Reach::both);
  CHECK(world[0].stats().unproven == refused + recorded.size());
  // After its death too.
  world[1].dead = true;
  world.run(world.now + 1000 * ms);
  REQUIRE(world[0].reach(1) == Reach::silent);
  for (const Datagram& d : recorded) world.inject(d);
  world.run(world.now + 1000 * ms);
  CHECK(world[0].reach(1) == Reach::silent);
}

TEST_CASE("attack: an old boot that never was accepted here cannot be brought in") {
  // Node 0 restarts; the recording holds heartbeats of node 1 to the old boot of node 0.
  World world(2);
  std::vector<Datagram> recorded;
  world.taps = [&](const Datagram& d) {
    if (d.from == 1) recorded.push_back(d);
  };
  world.run(3000 * ms);
  world.taps = nullptr;
  world[1].dead = true;
  world.boot(0, 2);
  world.run(3300 * ms);
  for (const Datagram& d : recorded) {
    world.inject(d);
    world.run(world.now + 5 * ms);
  }
  CHECK(world[0].reach(1) == Reach::silent);
  CHECK(world[0].stats().received == 0);
}

TEST_CASE("attack: a peer that is configured anew is not brought in by what it said before") {
  World world(2);
  std::vector<Datagram> recorded;
  world.taps = [&](const Datagram& d) {
    if (d.from == 1) recorded.push_back(d);
  };
  world.run(3000 * ms);
  world[1].dead = true;
  Node& node = world[0];
  const uint64_t peers = node.config.lans[0].peers;
  SUBCASE("gone and back") {
    node.config.lans[0].peers = 0;
    node.engine->configure(node.config, node.local(world.now));
  }
  SUBCASE("another address") {
    node.config.lans[0].address[1].v4.sin_port = 7;
  }
  SUBCASE("another port here") {
    node.config.lans[0].local.v4.sin_port = 7;
  }
  node.config.lans[0].peers = peers;
  node.engine->configure(node.config, node.local(world.now));
  const uint64_t received = node.stats().received;
  for (const Datagram& d : recorded) world.inject(d);
  world.run(world.now + 1000 * ms);
  CHECK(node.stats().received == received);
  CHECK(node.reach(1) == Reach::silent);
}

TEST_CASE("restart: a peer's holdfastd that restarts is accepted within three heartbeats") {
  for (uint64_t seed = 1; seed <= 50; seed++) {
    World world(3, 2, seed);
    world.run(3000 * ms);
    const uint64_t first = world[0].last(EventKind::peer, 1)->boot;
    world.boot(1, 3);
    const int64_t at = world[1].wakes_at;  // its first heartbeat
    world.run(at + 3 * 50 * ms + 2 * ms);
    CHECK(world[0].last(EventKind::peer, 1)->boot != first);
    CHECK(world[0].reach(1) == Reach::both);
    // It was away for less than suspect: nobody was reported silent.
    for (const Event& event : world[0].events) {
      if (event.kind == EventKind::peer) CHECK(event.value != static_cast<uint8_t>(Reach::silent));
    }
  }
}
