#include <doctest/doctest.h>

#include "test/beat_world.h"

using namespace holdfast;
using namespace holdfast::beat;
using namespace holdfast::beat::world;

namespace {

/** Two nodes that reach each other, both in view 5 of a module with lease slot 0. */
void serve(World& world) {
  world.run(2000 * ms);
  world.announce(0, 5, 3, 1);
  world.announce(1, 5, 3, 1);
  world.run(2500 * ms);
}

LeaseWhy why(Node& node) {
  return static_cast<LeaseWhy>(node.last(EventKind::lease)->why);
}

}  // namespace

TEST_CASE("lease: served all the time while nothing happens") {
  World world(2);
  serve(world);
  bool always = true;
  world.run(60 * ns_per_s, [&] {
    always = always && world[0].serves(0, world.now) && world[1].serves(0, world.now);
  });
  CHECK(always);
  CHECK(world[0].count(EventKind::lease) == 1);
}

TEST_CASE("lease: nothing is renewed before the agent announced slots") {
  World world(2);
  world.run(3000 * ms);
  CHECK(world[0].lease_end(0) == 0);
  CHECK(world[0].stats().leases_renewed == 0);
}

TEST_CASE("lease: a slot that is no longer announced is released at once") {
  World world(2);
  serve(world);
  REQUIRE(world[0].serves(0, world.now));
  world.announce(0, 5, 3, 2);
  CHECK(world[0].lease_end(0) == 0);
  CHECK(world[0].serves(1, world.now));
  world[0].engine->announce(Announcement{}, world[0].local(world.now));
  CHECK(world[0].lease_end(1) == 0);
}

TEST_CASE("lease: when a peer dies, the other serves on without a gap") {
  World world(2);
  serve(world);
  world[1].dead = true;
  bool always = true;
  world.run(world.now + 5000 * ms, [&] { always = always && world[0].serves(0, world.now); });
  CHECK(always);
}

TEST_CASE("lease: a node that is no longer heard is silent before the other takes over") {
  for (uint64_t seed = 1; seed <= 300; seed++) {
    World world(2, 1 + seed % 2, seed);
    world.delay_max = 1 + static_cast<int64_t>(world.random() % 5) * ms;
    serve(world);
    world.run(world.now + static_cast<int64_t>(world.random() % 200) * ms);
    // From now on some, then all of what node 0 sends is lost; node 1 is heard throughout.
    world.drops = [&](const Datagram& d) { return d.from == 0 && world.random() % 2 == 0; };
    world.run(world.now + static_cast<int64_t>(world.random() % 400) * ms);
    const bool silent_before = world[1].reach(0) == Reach::silent;
    world.drops = [](const Datagram& d) { return d.from == 0; };
    bool both = false;
    world.run(world.now + 1000 * ms, [&] {
      both = both || (world[1].reach(0) == Reach::silent && world[0].serves(0, world.now));
    });
    INFO("seed " << seed);
    CHECK(world[1].reach(0) == Reach::silent);
    CHECK_FALSE(world[0].serves(0, world.now));
    if (!silent_before) CHECK_FALSE(both);
    CHECK(why(world[0]) == LeaseWhy::not_echoed);
  }
}

TEST_CASE("lease: a later view without this node silences it at once") {
  World world(3);
  world.run(2000 * ms);
  for (const uint32_t id : {0U, 1U, 2U}) world.announce(id, 5, 7, 1);
  world.run(2500 * ms);
  REQUIRE(world[0].serves(0, world.now));
  const int64_t at = world.now;
  world.announce(1, 6, 6, 1);
  world.run(at + 2 * ms);
  CHECK(world[0].lease_end(0) == 0);
  CHECK(why(world[0]) == LeaseWhy::excluded_by_view);
  CHECK(world[2].serves(0, world.now));
  // Neither time nor the same view brings it back; a view at least as new does.
  world.run(at + 2000 * ms);
  CHECK(world[0].lease_end(0) == 0);
  world.announce(0, 5, 7, 3);
  CHECK(world[0].lease_end(0) == 0);
  CHECK(world[0].lease_end(1) == 0);
  world.announce(0, 6, 7, 1);
  CHECK(world[0].serves(0, world.now));
  CHECK(why(world[0]) == LeaseWhy::ok);
}

TEST_CASE("lease: excluded stays excluded when the excluding node has gone") {
  World world(2);
  serve(world);
  world.announce(1, 6, 2, 1);
  world.run(world.now + 10 * ms);
  world[1].dead = true;
  world.run(world.now + 2000 * ms);
  REQUIRE(world[0].reach(1) == Reach::silent);
  world.announce(0, 5, 1, 3);
  world.run(world.now + 100 * ms);
  CHECK(world[0].lease_end(0) == 0);
  world.announce(0, 7, 1, 3);
  CHECK(world[0].serves(0, world.now));
}

TEST_CASE("lease: which announcements exclude") {
  struct Row {
    const char* name;
    uint64_t epoch, members;
    uint32_t key;
    bool excludes;
  };
  const Row rows[] = {
      {"later, without us", 6, 2, 9, true},       {"later, with us", 6, 3, 9, false},
      {"same epoch, without us", 5, 2, 9, false}, {"earlier, without us", 4, 2, 9, false},
      {"another module", 6, 2, 8, false},         {"later, but no view", 6, 0, 9, false},
  };
  for (const Row& row : rows) {
    INFO(row.name);
    World world(2);
    serve(world);
    world.announce(1, row.epoch, row.members, 0, row.key);
    world.run(world.now + 100 * ms);
    CHECK(world[0].serves(0, world.now) == !row.excludes);
  }
}

TEST_CASE("lease: what a silent peer said last excludes nobody who announces afterwards") {
  World world(2);
  world.run(2000 * ms);
  world.announce(1, 9, 2, 1);
  world.run(2500 * ms);
  world[1].dead = true;
  world.run(4000 * ms);
  world.announce(0, 5, 1, 1);
  world.run(4100 * ms);
  CHECK(world[0].serves(0, world.now));
}

TEST_CASE("lease: after a pause the node hears the others before it serves again") {
  for (uint64_t seed = 1; seed <= 100; seed++) {
    World world(2, 1, seed);
    serve(world);
    world[0].paused = true;
    // Its buffers overflow: of what the peer says meanwhile nothing is kept.
    world.drops = [](const Datagram& d) { return d.to == 0; };
    const int64_t paused = world.now;
    world.run(paused + 500 * ms);
    CHECK_FALSE(world[0].serves(0, world.now));
    REQUIRE(world[1].reach(0) == Reach::silent);
    world.announce(1, 6, 2, 1);  // takes over
    world.run(paused + 2000 * ms);
    world.drops = nullptr;
    bool both = false;
    world.resume(world[0]);
    world.run(world.now + 1000 * ms, [&] { both = both || world[0].serves(0, world.now); });
    INFO("seed " << seed);
    CHECK_FALSE(both);
    CHECK(why(world[0]) == LeaseWhy::excluded_by_view);
  }
}

TEST_CASE("lease: after a pause that nobody used the node serves again") {
  World world(2);
  serve(world);
  world[0].paused = true;
  world.run(world.now + 300 * ms);
  world.resume(world[0]);
  world.run(world.now + 200 * ms);
  CHECK(world[0].serves(0, world.now));
}

TEST_CASE("lease: another map, or none, releases what was held in the old one") {
  World world(2);
  serve(world);
  Node& node = world[0];
  uint64_t other[max_slots] = {};
  node.config.lease_map = other;
  node.engine->configure(node.config, node.local(world.now));
  CHECK(node.lease_end(0) == 0);
  world.run(world.now + 100 * ms);
  CHECK(other[0] > static_cast<uint64_t>(node.local(world.now)));
  node.config.lease_map = nullptr;
  node.engine->configure(node.config, node.local(world.now));
  CHECK(other[0] == 0);
}

TEST_CASE("lease: fast timing (10 ms) serves without a gap") {
  Timing timing{10 * ms, 40 * ms, 30 * ms, 5000 * ms};
  World world(2, 1, 3, timing);
  serve(world);
  bool always = true;
  world.run(30 * ns_per_s, [&] { always = always && world[0].serves(0, world.now); });
  CHECK(always);
}

TEST_CASE("lease: of two views with one epoch the lower leader's silences the other") {
  World world(2);
  world.run(2000 * ms);
  world.announce(0, 4, 1, 1);
  world.announce(1, 4, 2, 1);
  world.run(2100 * ms);
  CHECK(world[0].serves(0, world.now));
  CHECK_FALSE(world[1].serves(0, world.now));
  world.announce(1, 5, 3, 1);
  world.announce(0, 5, 3, 1);
  world.run(2200 * ms);
  CHECK(world[0].serves(0, world.now));
  CHECK(world[1].serves(0, world.now));
}

TEST_CASE("lease: once lapsed it comes back only with the newest view") {
  World world(2);
  world.run(2000 * ms);
  world.announce(0, 4, 3, 1);
  world.announce(1, 4, 3, 1);
  world.run(2100 * ms);
  // Node 1 no longer hears node 0, takes it out of the view and, when it hears it again, back in:
  // the heartbeat that says the first is lost.
  world.drops = [](const Datagram& datagram) { return datagram.from == 0; };
  world.run(2400 * ms);
  CHECK_FALSE(world[0].serves(0, world.now));
  world.drops = nullptr;
  world.announce(1, 6, 3, 1);
  world.run(2700 * ms);
  CHECK(world[0].reach(1) == Reach::both);
  CHECK_FALSE(world[0].serves(0, world.now));
  world.announce(0, 6, 3, 1);
  world.run(2800 * ms);
  CHECK(world[0].serves(0, world.now));
}

TEST_CASE("lease: a peer just declared silent is not echoed while the agent acts upon it") {
  World world(2);
  world.run(2000 * ms);
  world.announce(0, 4, 3, 1);
  world.announce(1, 4, 3, 1);
  world.run(2100 * ms);
  world.drops = [](const Datagram& datagram) { return datagram.from == 0; };
  while (world[1].reach(0) != Reach::silent) world.run(world.now + ms);
  world.drops = nullptr;
  const int64_t silent_at = world.now;
  world.run(silent_at + 95 * ms, [&] { CHECK_FALSE(world[0].serves(0, world.now)); });
  world.run(silent_at + 300 * ms);
  CHECK(world[0].serves(0, world.now));
}

TEST_CASE(
    "lease: a node that was left out and does not hear caps the lease while it counts us in") {
  World world(2);
  world.run(2000 * ms);
  world.announce(0, 4, 3, 1);
  world.announce(1, 4, 3, 1);
  world.run(2100 * ms);
  world.drops = [](const Datagram& datagram) { return datagram.from == 0; };
  world.run(2120 * ms);
  world.announce(0, 5, 1, 1);  // alone from here on, says node 0; node 1 cannot hear it
  world.run(2400 * ms);
  CHECK_FALSE(world[0].serves(0, world.now));
  world.announce(1, 4, 0, 0);  // node 1 stands for nothing any more
  world.run(2500 * ms);
  CHECK(world[0].serves(0, world.now));
}

TEST_CASE("lease: a deaf node that is not heard any more may still take over") {
  World world(2);
  world.run(2000 * ms);
  world.announce(0, 4, 3, 1);
  world.announce(1, 4, 3, 1);
  world.run(2100 * ms);
  world.drops = [](const Datagram& datagram) { return datagram.from == 0; };
  world.run(2250 * ms);
  world.drops = [](const Datagram&) { return true; };
  world.run(2700 * ms);
  CHECK_FALSE(world[0].serves(0, world.now));
  world.announce(0, 5, 1, 1);
  world.run(2800 * ms);
  CHECK(world[0].serves(0, world.now));
}
