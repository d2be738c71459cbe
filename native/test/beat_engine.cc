#include <doctest/doctest.h>

#include "test/beat_world.h"

using namespace holdfast;
using namespace holdfast::beat;
using namespace holdfast::beat::world;

TEST_CASE("engine: two nodes reach each other, whatever their clocks") {
  World world(2);
  world.run(1500 * ms);
  CHECK(world[0].reach(1) == Reach::both);
  CHECK(world[1].reach(0) == Reach::both);
  const Stats stats = world[0].stats();
  CHECK(stats.received > 0);
  CHECK(stats.bad_mac + stats.malformed + stats.foreign + stats.replayed == 0);
  CHECK(stats.row_count == 1);
  CHECK(stats.rows[0].rtt_us < 2000);
  CHECK(stats.rows[0].lost == 0);
}

TEST_CASE("engine: a peer that dies is silent within suspect of its last heartbeat") {
  World world(2);
  world.run(3000 * ms);
  world[1].dead = true;
  const int64_t died = world.now;
  const size_t before = world[0].events.size();
  world.run(died + 1000 * ms);
  REQUIRE(world[0].reach(1) == Reach::silent);
  const int64_t at = static_cast<int64_t>(world[0].last(EventKind::peer, 1)->at_ns);
  const int64_t took = at - world[0].local(died);
  CHECK(took <= 201 * ms);
  CHECK(took >= 149 * ms);  // its last heartbeat was up to one interval old
  // One event for the network, one for the peer; nothing in between.
  CHECK(world[0].events.size() == before + 2);
}

TEST_CASE("engine: a peer never heard is reported silent after suspect + heartbeat, not before") {
  World world(2);
  world[1].dead = true;
  world.run(1000 * ms + 249 * ms);
  CHECK(world[0].count(EventKind::peer) == 0);
  world.run(1000 * ms + 260 * ms);
  CHECK(world[0].count(EventKind::peer) == 1);
  CHECK(world[0].reach(1) == Reach::silent);
}

TEST_CASE("engine: silent only when all networks are") {
  World world(2, 2);
  world.run(2000 * ms);
  world.drops = [](const Datagram& d) { return d.lan == 0; };
  const size_t peers_before = world[0].count(EventKind::peer);
  const size_t lans_before = world[0].count(EventKind::lan);
  world.run(5000 * ms);
  CHECK(world[0].count(EventKind::peer) == peers_before);
  CHECK(world[0].count(EventKind::lan) == lans_before + 1);
  world.drops = [](const Datagram&) { return true; };
  world.run(6000 * ms);
  CHECK(world[0].reach(1) == Reach::silent);
  world.drops = nullptr;
  world.run(7000 * ms);
  CHECK(world[0].reach(1) == Reach::both);
}

TEST_CASE("engine: one direction lost: heard here, silent there") {
  World world(2);
  world.run(2000 * ms);
  world.drops = [](const Datagram& d) { return d.from == 0; };
  world.run(3000 * ms);
  CHECK(world[0].reach(1) == Reach::heard);
  CHECK(world[1].reach(0) == Reach::silent);
}

TEST_CASE("engine: 20 % loss on one of two networks for 10 minutes suspects nobody") {
  World world(2, 2, 5);
  world.run(2000 * ms);
  const size_t before = world[0].count(EventKind::peer) + world[1].count(EventKind::peer);
  world.drops = [&](const Datagram& d) { return d.lan == 0 && world.random() % 5 == 0; };
  world.run(602 * ns_per_s);
  CHECK(world[0].count(EventKind::peer) + world[1].count(EventKind::peer) == before);
  CHECK(world[0].stats().rows[0].lost > 1000);
  CHECK(world[0].stats().rows[0].longest_burst >= 2);
}

TEST_CASE("engine: an observer that was late doubts itself before it suspects") {
  World world(2);
  world.run(2000 * ms);
  Node& late = world[0];
  late.paused = true;
  // Nothing is delivered meanwhile: its buffers overflowed.
  world.drops = [](const Datagram& d) { return d.to == 0; };
  world.run(4000 * ms);
  world.drops = nullptr;
  const size_t before = late.count(EventKind::peer);
  world.resume(late);
  world.run(5000 * ms);
  // Never silent: the interval of doubt brought the next heartbeat.
  for (size_t i = before; i < late.events.size(); i++) {
    const Event& event = late.events[i];
    if (event.kind == EventKind::peer) CHECK(event.value != static_cast<uint8_t>(Reach::silent));
  }
  CHECK(late.reach(1) == Reach::both);
  CHECK(late.stats().worst_lateness_us > 1900000);
}

TEST_CASE("engine: a late observer still notices a peer that is really gone") {
  World world(2);
  world.run(2000 * ms);
  world[0].paused = true;
  world[1].dead = true;
  world.run(4000 * ms);
  world.resume(world[0]);
  world.run(4049 * ms);
  CHECK(world[0].reach(1) == Reach::both);
  world.run(4060 * ms);
  CHECK(world[0].reach(1) == Reach::silent);
}

TEST_CASE("engine: an announcement goes out at once and arrives as an event once") {
  World world(2, 2);
  world.run(2000 * ms);
  const int64_t at = world.now;
  world.announce(0, 4, 3, 0);
  world.run(at + 2 * ms);
  const Event* event = world[1].last(EventKind::module, 0);
  REQUIRE(event != nullptr);
  CHECK(event->key == 9);
  CHECK(event->view_epoch == 4);
  CHECK(event->view_members == 3);
  CHECK(event->flags == module_running);
  const uint64_t sent = world[0].stats().sent;
  world.announce(0, 4, 3, 0);  // nothing new
  CHECK(world[0].stats().sent == sent);
  world.run(3000 * ms);
  CHECK(world[1].count(EventKind::module) == 1);
  world[0].engine->announce(Announcement{}, world[0].local(world.now));
  world.run(3100 * ms);
  CHECK(world[1].last(EventKind::module, 0)->view_epoch == 0);
  CHECK(world[1].count(EventKind::module) == 2);
}

TEST_CASE("engine: a hung agent is said to the peers, and they hear when it is back") {
  Timing timing;
  timing.agent_deadline = 1000 * ms;
  World world(2, 1, 1, timing);
  world.run(2000 * ms);
  world.announce(0, 1, 3, 1);
  world.run(2100 * ms);
  world[0].agent_alive = false;
  world.run(3000 * ms);
  CHECK(world[1].last(EventKind::peer, 0)->hung == 0);
  CHECK(world[0].serves(0, world.now));
  world.run(3300 * ms);
  CHECK(world[1].last(EventKind::peer, 0)->hung == 1);
  CHECK_FALSE(world[0].serves(0, world.now));
  CHECK(world[0].last(EventKind::lease)->why == static_cast<uint8_t>(LeaseWhy::agent_hung));
  world[0].agent_alive = true;
  world.run(3500 * ms);
  CHECK(world[1].last(EventKind::peer, 0)->hung == 0);
  CHECK(world[0].serves(0, world.now));
}

TEST_CASE("engine: after a hang an open VIP stays silent until the agent says that it is shut") {
  Timing timing;
  timing.agent_deadline = 1000 * ms;
  World world(2, 1, 1, timing);
  world.run(2000 * ms);
  const auto say = [&](uint32_t flags) {
    Announcement announcement{};
    announcement.count = 1;
    announcement.modules[0] = {9, flags, 1, 3, 1, LeaseRule::view, 0, 0};
    world[0].engine->announce(announcement, world[0].local(world.now));
  };
  say(module_running | module_open);
  world.run(2100 * ms);
  CHECK(world[0].serves(0, world.now));
  world[0].agent_alive = false;
  world.run(3300 * ms);
  CHECK_FALSE(world[0].serves(0, world.now));
  world[0].agent_alive = true;
  world.run(3500 * ms);
  CHECK(world[1].last(EventKind::peer, 0)->hung == 0);
  CHECK_FALSE(world[0].serves(0, world.now));
  say(module_running | module_open);  // another module's news, say: nothing was shut
  world.run(3600 * ms);
  CHECK_FALSE(world[0].serves(0, world.now));
  say(module_running);
  world.run(3700 * ms);
  CHECK(world[0].serves(0, world.now));
  say(module_running | module_open);
  world.run(3800 * ms);
  CHECK(world[0].serves(0, world.now));
}

TEST_CASE("engine: the same configuration again resets nothing; another address does") {
  World world(3);
  world.run(2000 * ms);
  Node& node = world[0];
  const size_t before = node.events.size();
  const uint64_t received = node.stats().rows[0].received;
  node.engine->configure(node.config, node.local(world.now));
  world.run(4000 * ms);
  CHECK(node.events.size() == before);
  CHECK(node.stats().rows[0].received > received);
  node.config.lans[0].address[1].v4.sin_port = 7;
  node.engine->configure(node.config, node.local(world.now));
  CHECK(node.stats().rows[0].received == 0);
  CHECK(node.stats().rows[1].received > 0);
  node.config.lans[0].peers = 2;  // node 2 is gone
  node.engine->configure(node.config, node.local(world.now));
  CHECK(node.stats().row_count == 1);
}

TEST_CASE("engine: a resync tells everything known") {
  World world(3, 2);
  world.announce(1, 3, 7, 0);
  world.announce(0, 2, 7, 1);
  world.run(3000 * ms);
  Node& node = world[0];
  node.events.clear();
  node.engine->resync(node.local(world.now));
  CHECK(node.count(EventKind::peer) == 2);
  CHECK(node.count(EventKind::lan) == 4);
  CHECK(node.count(EventKind::module) == 1);
  CHECK(node.count(EventKind::lease) == 1);
}

TEST_CASE("engine: faults are events when they come and when they go") {
  World world(2);
  Node& node = world[0];
  node.config.lans[0].bind_error = 99;
  node.config.lease_map_error = 2;
  node.engine->configure(node.config, node.local(world.now));
  CHECK(node.count(EventKind::fault) == 2);
  node.engine->configure(node.config, node.local(world.now));
  CHECK(node.count(EventKind::fault) == 2);
  node.config.lans[0].bind_error = 0;
  node.config.lease_map_error = 0;
  node.engine->configure(node.config, node.local(world.now));
  CHECK(node.count(EventKind::fault) == 4);
  CHECK(node.last(EventKind::fault)->error == 0);
}

TEST_CASE("engine: a slower network does not bring back what was said before") {
  World world(2, 2);
  world.second_lan_delay = 30 * ms;
  world.run(2000 * ms);
  for (uint64_t epoch = 1; epoch <= 10; epoch++) {
    world.announce(0, epoch, 3, 0);
    world.run(world.now + 70 * ms);
  }
  CHECK(world[1].count(EventKind::module) == 10);
}

TEST_CASE("engine: a peer with a longer interval is not suspected between its heartbeats") {
  World world(2);
  world[1].config.heartbeat_ns = 400 * ms;
  world[1].config.suspect_ns = 1600 * ms;
  world[1].engine->configure(world[1].config, world[1].local(world.now));
  world.run(4000 * ms);
  const size_t before = world[0].events.size();
  world.run(20000 * ms);
  CHECK(world[0].events.size() == before);
  CHECK(world[0].reach(1) == Reach::both);
}

TEST_CASE("engine: a flood puts judging off for two heartbeats, not for ever, and is no lateness") {
  World world(2);
  world.run(3000 * ms);
  world[0].flooded = true;
  world.run(4000 * ms);
  CHECK(world[0].reach(1) == Reach::both);
  world[1].dead = true;
  const int64_t died = world.now;
  world.run(died + 1000 * ms);
  REQUIRE(world[0].reach(1) == Reach::silent);
  const int64_t at = static_cast<int64_t>(world[0].last(EventKind::peer, 1)->at_ns);
  CHECK(at - world[0].local(died) <= 200 * ms + 2 * 50 * ms + 2 * ms);
  CHECK(world[0].stats().worst_lateness_us <= 2000);
}
