#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <queue>
#include <random>
#include <vector>

#include "beat/engine.h"
#include "common/clock.h"

/**
 * Several engines and the networks between them in simulated time. Each node has a clock of its
 * own (an offset) and wakes when its engine asks to or a datagram arrives, unless it is paused.
 */
namespace holdfast::beat::world {

inline constexpr int64_t ms = ns_per_ms;

struct Timing {
  int64_t heartbeat = 50 * ms;
  int64_t suspect = 200 * ms;
  int64_t lease = 150 * ms;
  int64_t agent_deadline = 5000 * ms;
};

struct Datagram {
  uint32_t from, to, lan;
  std::vector<uint8_t> bytes;
};

class World;

class Node final : public Port {
 public:
  Node(World& world, uint32_t id, uint64_t boot, int64_t clock);
  int send(uint32_t lan, uint32_t node, const uint8_t* data, size_t size) override;
  void event(const Event& event) override { events.push_back(event); }

  int64_t local(int64_t at) const { return at + clock; }
  /** Lease end of a slot in world time; 0: none. */
  int64_t lease_end(uint32_t slot) const {
    return slots[slot] == 0 ? 0 : static_cast<int64_t>(slots[slot]) - clock;
  }
  bool serves(uint32_t slot, int64_t at) const { return lease_end(slot) > at; }
  const Event* last(EventKind kind, uint32_t node = 0) const {
    for (auto it = events.rbegin(); it != events.rend(); ++it) {
      if (it->kind == kind && (kind == EventKind::lease || it->node == node)) return &*it;
    }
    return nullptr;
  }
  Reach reach(uint32_t node) const {
    const Event* event = last(EventKind::peer, node);
    return event == nullptr ? Reach::silent : static_cast<Reach>(event->value);
  }
  size_t count(EventKind kind) const {
    size_t n = 0;
    for (const Event& event : events) n += event.kind == kind ? 1 : 0;
    return n;
  }
  Stats stats() const {
    Stats stats{};
    engine->fill(stats);
    return stats;
  }

  World& world;
  const uint32_t id;
  const int64_t clock;
  std::unique_ptr<Engine> engine;
  Config config;
  uint64_t slots[max_slots] = {};
  std::vector<Event> events;
  bool paused = false;
  bool dead = false;
  bool flooded = false;  // its sockets never run empty
  bool agent_alive = true;
  int64_t agent_alive_at = 0;
  int64_t wakes_at = 0;
  std::vector<std::pair<Datagram, int64_t>> waiting;  // arrived while paused
};

class World {
 public:
  explicit World(uint32_t nodes, uint32_t lans = 1, uint64_t seed = 1, Timing t = {})
      : random(seed), timing(t), lan_count(lans) {
    for (uint32_t id = 0; id < nodes; id++) boot(id, nodes);
  }

  /** (Re)starts holdfastd on a node: a new boot, a clock that nobody knows. */
  Node& boot(uint32_t id, uint32_t nodes) {
    if (all.size() <= id) all.resize(id + 1);
    const int64_t clock = static_cast<int64_t>(random() % 1000000) * ms;
    all[id] = std::make_unique<Node>(*this, id, random() | 1, clock);
    Node& node = *all[id];
    Config& config = node.config;
    config.cluster = 77;
    config.me = id;
    config.lan_count = lan_count;
    config.heartbeat_ns = timing.heartbeat;
    config.suspect_ns = timing.suspect;
    config.lease_ns = timing.lease;
    config.agent_deadline_ns = timing.agent_deadline;
    config.lease_map = node.slots;
    for (uint32_t lan = 0; lan < lan_count; lan++) {
      config.lans[lan].socket = 0;
      config.lans[lan].peers = ((uint64_t{1} << nodes) - 1) & ~(uint64_t{1} << id);
    }
    node.engine->configure(config, node.local(now));
    node.wakes_at = now + static_cast<int64_t>(random() % 50) * ms;
    return node;
  }

  Node& operator[](uint32_t id) { return *all[id]; }

  void announce(uint32_t id, uint64_t epoch, uint64_t members, uint64_t slots, uint32_t key = 9) {
    ModuleConfig module{};
    module.key = key;
    module.flags = module_running;
    module.view_epoch = epoch;
    module.view_members = members;
    module.slots = slots;
    announce(id, module);
  }

  void announce(uint32_t id, const ModuleConfig& module) {
    Announcement announcement;
    announcement.count = 1;
    announcement.modules[0] = module;
    Node& node = *all[id];
    node.engine->announce(announcement, node.local(now));
    wake(node);
  }

  /** Runs until `until` (world time); `each` is called after every wake. */
  void run(int64_t until, const std::function<void()>& each = nullptr) {
    while (true) {
      int64_t next = until;
      for (auto& node : all) {
        if (!node->paused && !node->dead) next = std::min(next, std::max(node->wakes_at, now));
      }
      if (!flying.empty()) next = std::min(next, std::max(flying.top().at, now));
      now = next;
      if (now >= until) return;
      step();
      if (each) each();
    }
  }

  void resume(Node& node) {
    node.paused = false;
    node.wakes_at = now;
  }

  /** Hands a datagram over as if it had just arrived. */
  void inject(const Datagram& datagram) { deliver(datagram); }

  struct Flight {
    int64_t at;
    uint64_t order;
    Datagram datagram;
    bool operator<(const Flight& other) const {
      return at != other.at ? at > other.at : order > other.order;
    }
  };

  std::mt19937_64 random;
  const Timing timing;
  const uint32_t lan_count;
  int64_t now = 1000 * ms;
  std::vector<std::unique_ptr<Node>> all;
  std::priority_queue<Flight> flying;
  uint64_t order = 0;
  int64_t delay_max = ms / 2;
  int64_t second_lan_delay = 0;
  /** Whether a datagram is lost; nothing is by default. */
  std::function<bool(const Datagram&)> drops;
  /** Sees each datagram that is sent. */
  std::function<void(const Datagram&)> taps;

  void send(Datagram datagram) {
    if (taps) taps(datagram);
    if (drops && drops(datagram)) return;
    const int64_t delay = 50000 + static_cast<int64_t>(random() % static_cast<uint64_t>(delay_max));
    const int64_t slow = datagram.lan == 1 ? second_lan_delay : 0;
    flying.push({now + delay + slow, order++, std::move(datagram)});
  }

 private:
  void step() {
    if (!flying.empty() && flying.top().at <= now) {
      const Datagram datagram = flying.top().datagram;
      flying.pop();
      deliver(datagram);
      return;
    }
    for (auto& node : all) {
      if (!node->paused && !node->dead && node->wakes_at <= now) wake(*node);
    }
  }

  void deliver(const Datagram& datagram) {
    Node& node = *all[datagram.to];
    if (node.dead) return;
    node.waiting.emplace_back(datagram, now);
    if (!node.paused) wake(node);
  }

  void wake(Node& node) {
    const int64_t local = node.local(now);
    node.engine->woke(local);
    for (const auto& [datagram, at] : node.waiting) {
      node.engine->receive(datagram.lan, datagram.bytes.data(), datagram.bytes.size(),
                           node.local(at), local);
    }
    node.waiting.clear();
    if (node.agent_alive) node.agent_alive_at = local;
    node.engine->tick(local, node.agent_alive_at, !node.flooded);
    node.wakes_at = node.engine->next_wake() - node.clock;
    if (node.flooded) node.wakes_at = std::max(node.wakes_at, now + ms);
  }
};

inline Node::Node(World& w, uint32_t i, uint64_t boot, int64_t c)
    : world(w), id(i), clock(c), engine(std::make_unique<Engine>(boot, *this)) {}

inline int Node::send(uint32_t lan, uint32_t node, const uint8_t* data, size_t size) {
  world.send({id, node, lan, {data, data + size}});
  return 0;
}

}  // namespace holdfast::beat::world
