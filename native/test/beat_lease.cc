#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "beat/lease.h"

using namespace holdfast;
using namespace holdfast::beat;

namespace {

constexpr int64_t ms = ns_per_ms;
constexpr int64_t now = 100000 * ms;

/** Ages in ms before now; -1: never. */
struct PeerAges {
  uint32_t node;
  int64_t heard;
  int64_t echoed;
};

struct Case {
  std::string name;
  LeaseInput in;
  std::vector<PeerAges> peers;
  LeaseWhy why;
  int64_t end_ms;  // from now; ignored unless why is ok or not_echoed
};

constexpr uint64_t members(std::initializer_list<uint32_t> nodes) {
  uint64_t mask = 0;
  for (const uint32_t node : nodes) mask |= uint64_t{1} << node;
  return mask;
}

/** The default timing, last send 10 ms ago, node 0 in a view {0, 1, 2} of epoch 5. */
LeaseInput standard() {
  return {now, now - 10 * ms, 50 * ms, 200 * ms, 150 * ms, false, 0, members({0, 1, 2}), 5, 0, 0};
}

LeaseInput with(void (*change)(LeaseInput&)) {
  LeaseInput in = standard();
  change(in);
  return in;
}

const std::vector<Case> cases = {
    {"all well: last send + lease", standard(), {{1, 10, 40}, {2, 20, 30}}, LeaseWhy::ok, 140},
    {"echoes a little old cap it", standard(), {{1, 10, 120}, {2, 20, 30}}, LeaseWhy::ok, 60},
    {"the oldest echo counts", standard(), {{1, 10, 60}, {2, 20, 110}}, LeaseWhy::ok, 70},
    {"at suspect - margin it is over",
     standard(),
     {{1, 10, 180}, {2, 20, 30}},
     LeaseWhy::not_echoed,
     0},
    {"just before it is not", standard(), {{1, 10, 179}, {2, 20, 30}}, LeaseWhy::ok, 1},
    {"one direction dead for long",
     standard(),
     {{1, 10, 5000}, {2, 20, 30}},
     LeaseWhy::not_echoed,
     -4820},
    {"a member that never echoed",
     standard(),
     {{1, 10, -1}, {2, 20, 30}},
     LeaseWhy::not_echoed,
     180 - now / ms},
    {"a dead member withholds nothing",
     standard(),
     {{1, 101, 150}, {2, 20, 30}},
     LeaseWhy::ok,
     140},
    {"a member that did not hear this one and is not heard any more goes on withholding",
     standard(),
     {{1, 101, 5000}, {2, 20, 30}},
     LeaseWhy::not_echoed,
     -4820},
    {"left out, but it still counts this node in",
     with([](LeaseInput& in) {
       in.view_members = members({0, 2});
       in.counted_by = members({1});
     }),
     {{1, 10, 120}, {2, 20, 30}},
     LeaseWhy::ok,
     60},
    {"left out, deaf, and silent for long: it is the agent's by now",
     with([](LeaseInput& in) {
       in.view_members = members({0, 2});
       in.counted_by = members({1});
     }),
     {{1, 201, 5000}, {2, 20, 30}},
     LeaseWhy::ok,
     140},
    {"two heartbeats are still heard", standard(), {{1, 100, 150}, {2, 20, 30}}, LeaseWhy::ok, 30},
    {"a member never heard withholds nothing",
     standard(),
     {{1, -1, -1}, {2, 20, 30}},
     LeaseWhy::ok,
     140},
    {"who is not in the view withholds nothing",
     with([](LeaseInput& in) {
       in.view_members = members({0, 2});
     }),
     {{1, 10, 5000}, {2, 20, 30}},
     LeaseWhy::ok,
     140},
    {"alone in the view: no cap",
     with([](LeaseInput& in) { in.view_members = members({0}); }),
     {{1, 10, 5000}, {2, 20, 5000}},
     LeaseWhy::ok,
     140},
    {"no view: no cap",
     with([](LeaseInput& in) { in.view_members = 0; }),
     {{1, 10, 5000}, {2, 20, 5000}},
     LeaseWhy::ok,
     140},
    {"the thread itself was late",
     with([](LeaseInput& in) { in.last_send_ns = now - 160 * ms; }),
     {{1, 10, 40}, {2, 20, 30}},
     LeaseWhy::not_echoed,
     -10},
    {"agent hung",
     with([](LeaseInput& in) { in.agent_hung = true; }),
     {{1, 10, 40}, {2, 20, 30}},
     LeaseWhy::agent_hung,
     0},
    {"excluded by a later view",
     with([](LeaseInput& in) { in.excluded_epoch = 6; }),
     {{1, 10, 40}, {2, 20, 30}},
     LeaseWhy::excluded_by_view,
     0},
    {"the agent knows that view by now",
     with([](LeaseInput& in) { in.excluded_epoch = 5; }),
     {{1, 10, 40}, {2, 20, 30}},
     LeaseWhy::ok,
     140},
    {"fast profile: the margin is a tenth of suspect",
     with([](LeaseInput& in) {
       in.heartbeat_ns = 10 * ms;
       in.suspect_ns = 40 * ms;
       in.lease_ns = 30 * ms;
       in.last_send_ns = now - ms;
     }),
     {{1, 5, 20}, {2, 5, 8}},
     LeaseWhy::ok,
     16},
    {"own echo does not matter",
     with([](LeaseInput& in) { in.me = 1; }),
     {{0, 10, 40}, {1, 10, 5000}, {2, 20, 30}},
     LeaseWhy::ok,
     140},
    {"node 63",
     with([](LeaseInput& in) {
       in.view_members = members({0, 63});
     }),
     {{63, 10, 100}},
     LeaseWhy::ok,
     80},
};

using Rule = LeaseVerdict (*)(const LeaseInput&, const LeasePeer*);

std::vector<LeasePeer> peers_of(const Case& c) {
  std::vector<LeasePeer> peers(max_nodes);
  for (const PeerAges& age : c.peers) {
    peers[age.node].last_heard_ns = age.heard < 0 ? 0 : now - age.heard * ms;
    peers[age.node].echoed_ns = age.echoed < 0 ? 0 : now - age.echoed * ms;
  }
  return peers;
}

bool holds(const Case& c, Rule rule) {
  const LeaseVerdict verdict = rule(c.in, peers_of(c).data());
  if (verdict.why != c.why) return false;
  const bool written = c.why == LeaseWhy::ok || c.why == LeaseWhy::not_echoed;
  return !written || verdict.end_ns == now + c.end_ms * ms;
}

/** The rule with something left out or wrong, by turning its input. */
struct Mutant {
  const char* name;
  Rule rule;
};

LeaseVerdict over(LeaseInput in, std::vector<LeasePeer> peers) {
  return lease_verdict(in, peers.data());
}
std::vector<LeasePeer> copy(const LeasePeer* peers) {
  return {peers, peers + max_nodes};
}

const std::vector<Mutant> mutants = {
    {"no echo cap", [](const LeaseInput& in,
                       const LeasePeer*) { return over(in, std::vector<LeasePeer>(max_nodes)); }},
    {"receipt instead of echo",
     [](const LeaseInput& in, const LeasePeer* peers) {
       auto changed = copy(peers);
       for (LeasePeer& peer : changed) peer.echoed_ns = peer.last_heard_ns;
       return over(in, changed);
     }},
    {"no margin",
     [](const LeaseInput& in, const LeasePeer* peers) {
       auto changed = copy(peers);
       for (LeasePeer& peer : changed) peer.echoed_ns += lease_margin_ns(in.suspect_ns);
       return over(in, changed);
     }},
    {"dead members withhold too",
     [](const LeaseInput& in, const LeasePeer* peers) {
       auto changed = copy(peers);
       for (LeasePeer& peer : changed) {
         if (peer.last_heard_ns > 0) peer.last_heard_ns = in.now_ns;
       }
       return over(in, changed);
     }},
    {"who was left out is forgotten",
     [](const LeaseInput& in, const LeasePeer* peers) {
       LeaseInput changed = in;
       changed.counted_by = 0;
       return over(changed, copy(peers));
     }},
    {"one heartbeat instead of two",
     [](const LeaseInput& in, const LeasePeer* peers) {
       auto changed = copy(peers);
       for (LeasePeer& peer : changed) peer.last_heard_ns -= in.heartbeat_ns;
       return over(in, changed);
     }},
    {"everybody caps, member or not",
     [](const LeaseInput& in, const LeasePeer* peers) {
       LeaseInput changed = in;
       changed.view_members = ~uint64_t{0};
       return over(changed, copy(peers));
     }},
    {"a member without echo is skipped",
     [](const LeaseInput& in, const LeasePeer* peers) {
       auto changed = copy(peers);
       for (LeasePeer& peer : changed) {
         if (peer.echoed_ns == 0) peer.last_heard_ns = 0;
       }
       return over(in, changed);
     }},
    {"the newest echo of all counts",
     [](const LeaseInput& in, const LeasePeer* peers) {
       auto changed = copy(peers);
       int64_t newest = 0;
       for (const LeasePeer& peer : changed) newest = std::max(newest, peer.echoed_ns);
       for (LeasePeer& peer : changed) peer.echoed_ns = newest;
       return over(in, changed);
     }},
    {"from now instead of from the last send",
     [](const LeaseInput& in, const LeasePeer* peers) {
       LeaseInput changed = in;
       changed.last_send_ns = in.now_ns;
       return over(changed, copy(peers));
     }},
    {"a hung agent keeps its lease",
     [](const LeaseInput& in, const LeasePeer* peers) {
       LeaseInput changed = in;
       changed.agent_hung = false;
       return over(changed, copy(peers));
     }},
    {"a later view is ignored",
     [](const LeaseInput& in, const LeasePeer* peers) {
       LeaseInput changed = in;
       changed.excluded_epoch = 0;
       return over(changed, copy(peers));
     }},
    {"the same view excludes",
     [](const LeaseInput& in, const LeasePeer* peers) {
       LeaseInput changed = in;
       if (in.excluded_epoch > 0) changed.excluded_epoch++;
       return over(changed, copy(peers));
     }},
    {"this node caps itself",
     [](const LeaseInput& in, const LeasePeer* peers) {
       LeaseInput changed = in;
       changed.me = 40;
       return over(changed, copy(peers));
     }},
    {"nodes beyond 31 are forgotten",
     [](const LeaseInput& in, const LeasePeer* peers) {
       LeaseInput changed = in;
       changed.view_members &= 0xffffffff;
       return over(changed, copy(peers));
     }},
    {"a margin of 20 ms for any timing",
     [](const LeaseInput& in, const LeasePeer* peers) {
       auto changed = copy(peers);
       for (LeasePeer& peer : changed) {
         peer.echoed_ns -= 20 * ms - lease_margin_ns(in.suspect_ns);
       }
       return over(in, changed);
     }},
};

}  // namespace

TEST_CASE("lease: the rule, case by case") {
  for (const Case& c : cases) {
    INFO(c.name);
    CHECK(holds(c, lease_verdict));
  }
}

TEST_CASE("lease: the cases find every planted bug") {
  for (const Mutant& mutant : mutants) {
    INFO(mutant.name);
    size_t found = 0;
    for (const Case& c : cases) found += holds(c, mutant.rule) ? 0 : 1;
    CHECK(found > 0);
  }
}
