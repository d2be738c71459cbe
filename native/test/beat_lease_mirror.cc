#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

#include "test/beat_world.h"

using namespace holdfast;
using namespace holdfast::beat;
using namespace holdfast::beat::world;

namespace {

constexpr int64_t lease = 300 * ms;
constexpr int64_t at = 100000 * ms;

using Rule = LeaseVerdict (*)(const MirrorLeaseInput&);

struct Case {
  std::string name;
  bool own;
  int64_t last_send;  // ages in ms; consented -1: never
  int64_t agent;
  int64_t consented;
  int64_t held;  // ms from now that were promised before
  LeaseWhy why;
  int64_t end;  // ms from now
};

const std::vector<Case> cases = {
    {"own: last send + lease", true, 10, 50, -1, 0, LeaseWhy::ok, 290},
    {"own: consent does not matter", true, 10, 50, 200, 0, LeaseWhy::ok, 290},
    {"own: the agent is just alive", true, 10, 300, -1, 200, LeaseWhy::ok, 290},
    {"own: it is dead, the promise stands", true, 10, 301, -1, 200, LeaseWhy::ok, 200},
    {"own: and ends", true, 10, 400, -1, 0, LeaseWhy::agent_hung, 0},
    {"own: the thread itself was late", true, 310, 50, -1, -5, LeaseWhy::not_echoed, -5},
    {"own: what consent promised goes on", true, 100, 50, 10, 290, LeaseWhy::ok, 290},
    {"peer: consented + lease", false, 10, 50, 60, 0, LeaseWhy::ok, 240},
    {"peer: own heartbeats renew nothing", false, 0, 0, -1, 120, LeaseWhy::ok, 120},
    {"peer: nothing ever", false, 0, 0, -1, -1, LeaseWhy::no_consent, -1},
    {"peer: at its end it is over", false, 10, 50, 300, 0, LeaseWhy::no_consent, 0},
    {"peer: the agent may hang for the cluster's deadline", false, 10, 990, 60, 0, LeaseWhy::ok,
     240},
    {"peer: not longer", false, 10, 1001, 60, 100, LeaseWhy::ok, 100},
    {"peer: then it ends", false, 10, 1001, 60, -3, LeaseWhy::agent_hung, -3},
};

MirrorLeaseInput input_of(const Case& c) {
  return {at,
          at - c.last_send * ms,
          lease,
          at - c.agent * ms,
          1000 * ms,
          c.consented < 0 ? 0 : at - c.consented * ms,
          at + c.held * ms};
}

bool holds(const Case& c, Rule own, Rule peer) {
  const LeaseVerdict verdict = (c.own ? own : peer)(input_of(c));
  return verdict.why == c.why && verdict.end_ns == at + c.end * ms;
}

struct Mutant {
  const char* name;
  Rule own, peer;
};

template <typename F>
LeaseVerdict over(Rule rule, MirrorLeaseInput in, F change) {
  change(in);
  return rule(in);
}

const std::vector<Mutant> mutants = {
    {"the agent's deadline is the cluster's",
     [](const MirrorLeaseInput& in) {
       return over(lease_by_own_life, in, [](auto& i) {
         if (i.now_ns - i.agent_alive_ns <= i.agent_deadline_ns) i.agent_alive_ns = i.now_ns;
       });
     },
     lease_by_consent},
    {"renewed after the agent's deadline",
     [](const MirrorLeaseInput& in) {
       return over(lease_by_own_life, in, [](auto& i) { i.agent_alive_ns = i.now_ns; });
     },
     lease_by_consent},
    {"by consent, renewed after the agent's deadline", lease_by_own_life,
     [](const MirrorLeaseInput& in) {
       return over(lease_by_consent, in, [](auto& i) { i.agent_alive_ns = i.now_ns; });
     }},
    {"from now instead of the last send",
     [](const MirrorLeaseInput& in) {
       return over(lease_by_own_life, in, [](auto& i) { i.last_send_ns = i.now_ns; });
     },
     lease_by_consent},
    {"own heartbeats are enough", lease_by_own_life,
     [](const MirrorLeaseInput& in) {
       return over(lease_by_consent, in, [](auto& i) { i.consented_ns = i.last_send_ns; });
     }},
    {"a promise is taken back",
     [](const MirrorLeaseInput& in) {
       return over(lease_by_own_life, in, [](auto& i) { i.held_until_ns = 0; });
     },
     [](const MirrorLeaseInput& in) {
       return over(lease_by_consent, in, [](auto& i) { i.held_until_ns = 0; });
     }},
};

/** Key 9 as the module of a mirror; slot 0. */
ModuleConfig mirror(uint64_t epoch, LeaseRule rule, bool consent, uint32_t peer = 0) {
  return {9,     module_running | (consent ? module_consent : 0),
          epoch, 0,
          1,     rule,
          peer,  static_cast<uint64_t>(lease)};
}

/** Node 0 is primary by the peer rule, node 1 consents; both know of epoch 5. */
void serve(World& world) {
  world.run(2000 * ms);
  world.announce(1, mirror(5, LeaseRule::off, true));
  world.announce(0, mirror(5, LeaseRule::peer, false, 1));
  world.run(2500 * ms);
}

LeaseWhy why(Node& node) {
  return static_cast<LeaseWhy>(node.last(EventKind::lease)->why);
}

bool renewing(Node& node) {
  return node.last(EventKind::lease)->value == 1;
}

}  // namespace

TEST_CASE("mirror lease: the rules, case by case, find every planted bug") {
  for (const Case& c : cases) {
    INFO(c.name);
    CHECK(holds(c, lease_by_own_life, lease_by_consent));
  }
  for (const Mutant& mutant : mutants) {
    INFO(mutant.name);
    size_t found = 0;
    for (const Case& c : cases) found += holds(c, mutant.own, mutant.peer) ? 0 : 1;
    CHECK(found > 0);
  }
}

TEST_CASE("mirror lease: by consent without a gap, for hours of quiet") {
  World world(2);
  serve(world);
  bool always = true;
  world.run(60 * ns_per_s, [&] { always = always && world[0].serves(0, world.now); });
  CHECK(always);
  CHECK(world[1].lease_end(0) == 0);
  // Neither its first moment without consent nor anything later was news.
  CHECK(world[0].count(EventKind::lease) == 1);
  CHECK(renewing(world[0]));
}

TEST_CASE(
    "mirror lease: without consent it ends a lease after the last send that was answered with it") {
  for (uint64_t seed = 1; seed <= 200; seed++) {
    World world(2, 1 + seed % 2, seed);
    world.delay_max = (1 + static_cast<int64_t>(seed % 30)) * ms;
    serve(world);
    world.run(world.now + static_cast<int64_t>(world.random() % 100) * ms);
    // What node 0 sent when node 1 withdrew its consent, at the latest, is what it may live by.
    const int64_t dissent = world.now;
    world.announce(1, mirror(5, LeaseRule::off, false));
    int64_t end = 0;
    world.run(dissent + 2 * lease, [&] { end = std::max(end, world[0].lease_end(0)); });
    INFO("seed " << seed);
    CHECK(end <= dissent + lease);
    CHECK(end > dissent);
    CHECK_FALSE(world[0].serves(0, world.now));
    CHECK_FALSE(renewing(world[0]));
    CHECK(why(world[0]) == LeaseWhy::no_consent);
  }
}

TEST_CASE("mirror lease: the way there is counted, arrivals are not") {
  World world(2);
  world.delay_max = 40 * ms;
  std::set<int64_t> sent;
  world.taps = [&](const Datagram& d) {
    if (d.from == 0) sent.insert(world.now);
  };
  serve(world);
  bool of_sends = true;
  int64_t newest = 0;
  world.run(world.now + 2000 * ms, [&] {
    newest = world[0].lease_end(0);
    of_sends = of_sends && sent.count(newest - lease) == 1;
  });
  CHECK(of_sends);
  CHECK(newest > world.now);
}

TEST_CASE("mirror lease: which heartbeats of the peer renew it") {
  struct Row {
    const char* name;
    uint32_t node;
    ModuleConfig said;
    bool renews;
  };
  ModuleConfig other_key = mirror(5, LeaseRule::off, true);
  other_key.key = 8;
  ModuleConfig stopped = mirror(5, LeaseRule::off, true);
  stopped.flags = module_consent;
  const Row rows[] = {
      {"consent, same epoch", 1, mirror(5, LeaseRule::off, true), true},
      {"consent, earlier epoch", 1, mirror(4, LeaseRule::off, true), true},
      {"consent, later epoch", 1, mirror(6, LeaseRule::off, true), false},
      {"no consent", 1, mirror(5, LeaseRule::off, false), false},
      {"of another module", 1, other_key, false},
      {"of another node", 2, mirror(5, LeaseRule::off, true), false},
      {"consent alone counts, whatever else it says", 1, stopped, true},
  };
  for (const Row& row : rows) {
    INFO(row.name);
    World world(3);
    world.run(2000 * ms);
    world.announce(0, mirror(5, LeaseRule::peer, false, 1));
    world.announce(row.node, row.said);
    world.run(3000 * ms);
    CHECK(world[0].serves(0, world.now) == row.renews);
    CHECK(renewing(world[0]) == row.renews);
  }
}

TEST_CASE("mirror lease: an epoch that is known later makes a later heartbeat count") {
  World world(2);
  world.run(2000 * ms);
  world.announce(1, mirror(6, LeaseRule::off, true));
  world.announce(0, mirror(5, LeaseRule::peer, false, 1));
  world.run(3000 * ms);
  REQUIRE_FALSE(world[0].serves(0, world.now));
  world.announce(0, mirror(6, LeaseRule::peer, false, 1));
  CHECK_FALSE(world[0].serves(0, world.now));
  world.run(3100 * ms);
  CHECK(world[0].serves(0, world.now));
}

TEST_CASE("mirror lease: off is in force when announce returns, from any rule") {
  for (const LeaseRule rule : {LeaseRule::peer, LeaseRule::own}) {
    World world(2);
    serve(world);
    world.announce(0, mirror(5, rule, false, 1));
    world.run(world.now + 100 * ms);
    REQUIRE(world[0].serves(0, world.now));
    Announcement off;
    off.count = 1;
    off.modules[0] = mirror(5, LeaseRule::off, false);
    world[0].engine->announce(off, world[0].local(world.now));
    CHECK(world[0].slots[0] == 0);
    world.run(world.now + 1000 * ms, [&] { REQUIRE(world[0].slots[0] == 0); });
    // What was consented before counts no more, though it would still run.
    world.drops = [](const Datagram& d) { return d.to == 0; };
    world.announce(0, mirror(5, LeaseRule::peer, false, 1));
    world.run(world.now + 100 * ms);
    CHECK(world[0].slots[0] == 0);
  }
}

TEST_CASE("mirror lease: a slot that a former holdfastd left is 0 by the rule off") {
  World world(2);
  world.run(2000 * ms);
  world[0].slots[0] = static_cast<uint64_t>(world[0].local(9000 * ms));
  Announcement off;
  off.count = 1;
  off.modules[0] = mirror(5, LeaseRule::off, false);
  world[0].engine->announce(off, world[0].local(world.now));
  CHECK(world[0].slots[0] == 0);
}

TEST_CASE("mirror lease: one of two networks carries it") {
  for (const uint32_t dead : {0U, 1U}) {
    World world(2, 2);
    serve(world);
    world.drops = [&](const Datagram& d) { return d.lan == dead; };
    bool always = true;
    world.run(world.now + 3000 * ms, [&] { always = always && world[0].serves(0, world.now); });
    CHECK(always);
  }
}

TEST_CASE("mirror lease: own goes on without anybody, and ends with the agent") {
  World world(2);
  serve(world);
  world.announce(0, mirror(6, LeaseRule::own, false));
  world[1].dead = true;
  bool always = true;
  world.run(world.now + 5000 * ms, [&] { always = always && world[0].serves(0, world.now); });
  CHECK(always);
  const int64_t last = world.now;
  world[0].agent_alive = false;
  int64_t end = 0;
  world.run(last + 5000 * ms, [&] { end = std::max(end, world[0].lease_end(0)); });
  // Its deadline is as long as the lease, and the lease runs out after that.
  CHECK(end <= last + 2 * lease);
  CHECK(end > last + lease);
  CHECK(why(world[0]) == LeaseWhy::agent_hung);
  CHECK_FALSE(renewing(world[0]));
  world[0].agent_alive = true;
  world.run(world.now + 100 * ms);
  CHECK(world[0].serves(0, world.now));
  CHECK(renewing(world[0]));
}

TEST_CASE("mirror lease: from own to the peer's there is no gap, and then it is the peer's") {
  World world(2);
  world.run(2000 * ms);
  world.announce(1, mirror(5, LeaseRule::off, true));
  world.announce(0, mirror(5, LeaseRule::own, false));
  world.run(2500 * ms);
  bool always = true;
  const auto watch = [&] { always = always && world[0].serves(0, world.now); };
  world.announce(0, mirror(5, LeaseRule::peer, false, 1));
  const int64_t asked = world.now;
  world.run(3000 * ms, watch);
  CHECK(always);
  world.announce(1, mirror(5, LeaseRule::off, false));
  world.run(3000 * ms + lease + ms);
  CHECK_FALSE(world[0].serves(0, world.now));
  // And back, when the peer is named no more.
  world.announce(0, mirror(6, LeaseRule::own, false));
  world.run(world.now + 60 * ms);
  CHECK(world[0].serves(0, world.now));
  CHECK(asked < world.now);
}

TEST_CASE("mirror lease: a paused thread does not take it up by what waited in its sockets") {
  World world(2);
  serve(world);
  world[0].paused = true;
  world.run(world.now + 100 * ms);
  const int64_t dissent = world.now;
  world.announce(1, mirror(5, LeaseRule::off, false));
  world.run(dissent + 2000 * ms);
  world.resume(world[0]);
  world.run(world.now + 1000 * ms, [&] { REQUIRE_FALSE(world[0].serves(0, world.now)); });
}

TEST_CASE("mirror lease: heartbeats out of order say what they said when they were sent") {
  // The second network is 30 ms slower: what comes there late consents still, to old sends only.
  World world(2, 2);
  world.second_lan_delay = 30 * ms;
  serve(world);
  const int64_t dissent = world.now;
  world.announce(1, mirror(5, LeaseRule::off, false));
  world.run(dissent + 400 * ms);
  CHECK(world[0].lease_end(0) <= dissent + lease);
  CHECK_FALSE(world[0].serves(0, world.now));
}

TEST_CASE("mirror lease: views of the same module by another node do not touch it") {
  World world(2);
  serve(world);
  // Another node that took the module for a farm's: a later view without this node.
  world.announce(1,
                 ModuleConfig{9, module_running | module_consent, 5, 2, 1, LeaseRule::view, 0, 0});
  world.run(world.now + 100 * ms);
  CHECK(world[0].serves(0, world.now));
}

TEST_CASE("engine: a peer event says when the peer was last heard") {
  World world(2, 2);
  world.run(3000 * ms);
  int64_t last = 0;
  world.taps = [&](const Datagram& d) {
    if (d.from == 1) last = world.now;
  };
  world.run(4000 * ms);
  world[1].dead = true;
  world.run(5000 * ms);
  const Event* silent = world[0].last(EventKind::peer, 1);
  REQUIRE(silent->value == static_cast<uint8_t>(Reach::silent));
  const int64_t heard = static_cast<int64_t>(silent->heard_ns) - world[0].clock;
  CHECK(heard >= last);
  CHECK(heard <= last + 2 * ms);
  CHECK(static_cast<int64_t>(silent->at_ns) - world[0].clock >= heard + world.timing.suspect);
}

TEST_CASE("engine: a peer that was never heard says so") {
  World world(2);
  world[1].dead = true;
  world.run(3000 * ms);
  const Event* silent = world[0].last(EventKind::peer, 1);
  REQUIRE(silent != nullptr);
  CHECK(silent->heard_ns == 0);
}
