#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

#include "beat/detector.h"
#include "beat/lease.h"
#include "beat/limits.h"
#include "beat/model.h"
#include "beat/shm.h"
#include "beat/wire.h"
#include "common/sha256.h"

namespace holdfast::beat {

/** Calls `f` with each node, or slot, of a mask, lowest first. */
template <typename F>
void each_node(uint64_t mask, F f) {
  for (; mask != 0; mask &= mask - 1) f(static_cast<uint32_t>(std::countr_zero(mask)));
}

/** What the engine asks of the thread that drives it. */
class Port {
 public:
  virtual ~Port() = default;
  /** Sends one datagram; returns 0 or an errno. Must not block. */
  virtual int send(uint32_t lan, uint32_t node, const uint8_t* data, size_t size) = 0;
  virtual void event(const Event& event) = 0;
};

/**
 * Heartbeats, detection and leases as a machine: time and datagrams come in as arguments, so that
 * tests drive it without sockets or waiting. Never allocates, locks or logs. One thread.
 *
 * Per peer: `accepted boot` is the boot of the peer's holdfastd whose heartbeats count. A boot is
 * accepted only when it proves that it is alive now: it must echo a heartbeat of the own boot that
 * is newer than anything echoed before. A replayed datagram of an old boot cannot do that.
 */
class Engine {
 public:
  Engine(uint64_t boot, Port& port) : boot_(boot), port_(port) {}

  /** Takes a configuration over. What stays the same in it keeps its state. */
  void configure(const Config& config, int64_t now);
  /**
   * Takes the modules over, which must make sense; sends at once when something changed. Leases
   * that it withdraws are 0 when it returns.
   */
  void announce(const Announcement& announcement, int64_t now);
  /** First call after each wake, before the sockets are drained: notes how late it is. */
  void woke(int64_t now);
  /** One datagram of network `lan`; `arrival` is when it reached the machine. */
  void receive(uint32_t lan, const uint8_t* data, size_t size, int64_t arrival, int64_t now);
  /**
   * Last call of each wake: judges silence, sends when due, renews leases. `may_judge` says that
   * all sockets were read until empty in this wake; without it judging is put off, for two
   * heartbeats at most.
   */
  void tick(int64_t now, int64_t agent_alive, bool may_judge);
  /** When tick must be called at the latest. */
  int64_t next_wake() const;
  /** Emits everything known as events, for an agent that starts or lost events. */
  void resync(int64_t now);
  /** Writes 0 to every lease slot in use: the VIPs are silent at once. */
  void release_leases();
  /** Fills the counters and rows that the engine knows. */
  void fill(Stats& stats) const;

 private:
  struct Link {
    Detector detector;
    bool up = false;
    bool known = false;          // an event was emitted
    int64_t deadline_first = 0;  // judged silent from here on when nothing was heard at all
    uint64_t sequence = 0;       // newest of the accepted boot
    uint64_t sent_ns = 0;        // its send time, peer's clock
    uint64_t received = 0;
    uint64_t lost = 0;
    uint32_t longest_burst = 0;
    int64_t rtt_ns = 0;
  };
  struct Peer {
    uint64_t boot = 0;       // accepted; 0: none yet
    uint64_t candidate = 0;  // heard, not proven
    uint64_t candidate_sequence = 0;
    uint64_t proven_sequence = 0;  // newest own sequence that it echoed: the floor for a new boot
    uint64_t sequence = 0;         // newest heard on any network
    uint32_t lateness_us = 0;
    bool known = false;    // an event was emitted
    bool changed = false;  // one is due whatever reach says
    Reach reach = Reach::silent;
    int64_t mute_until = 0;  // declared silent: not echoed while the agent acts upon it
    bool hung = false;
    uint32_t module_count = 0;
    WireModule modules[max_modules] = {};
    Link links[max_lans];
  };
  struct Module {
    ModuleConfig config{};
    uint64_t excluded_epoch = 0;
    int64_t lease_end = 0;     // as written; 0: none
    int64_t listen_until = 0;  // the lease lapsed by own lateness: hear the others first
    int64_t rule_since = 0;
    // Rule peer: send time of the newest own heartbeat that a consenting one echoed; 0: none.
    int64_t consented_ns = 0;
    LeaseWhy why = LeaseWhy::ok;
    bool reported = false;
    // Its agent hung while its filter was open: others may have its clients by now.
    bool must_shut = false;
  };

  bool same_identity(const Config& config) const;
  void forget(uint32_t node);
  void configure_link(const Config& config, uint32_t lan, uint32_t node, int64_t now);
  void send_all(int64_t now);
  void compose(uint32_t node, int64_t now, Heartbeat& beat) const;
  bool prove_boot(Peer& peer, const Heartbeat& beat, int64_t now);
  uint64_t proof_of(const Heartbeat& beat) const;
  void heard(uint32_t node, uint32_t lan, const Heartbeat& beat, int64_t arrival);
  void take_echoes(uint32_t node, uint32_t lan, const Heartbeat& beat, int64_t arrival);
  void take_modules(uint32_t node, const Heartbeat& beat, int64_t arrival);
  void check_excluded(const WireModule& theirs);
  void judge(uint32_t node, int64_t now, bool may_suspect);
  void withdraw_leases(const Announcement& next);
  static void change_rule(Module& module, const ModuleConfig& next, int64_t now);
  void renew_leases(int64_t now);
  void renew_by_view(Module& module, int64_t now);
  void renew_of_mirror(Module& module, int64_t now);
  void take_consents(uint32_t node, const Heartbeat& beat, int64_t echoed);
  /** What the others that are heard say of a module, as far as its lease is concerned. */
  struct Claims {
    uint64_t counted_by = 0;  // LeaseInput
    bool ahead = false;       // one announces a later view, or serves by a view without this node
  };
  Claims claims_on(const ModuleConfig& ours, int64_t now) const;
  void write_slots(uint64_t slots, int64_t end);
  void emit_peer(uint32_t node, int64_t now);
  void emit_module(uint32_t node, const WireModule& module, int64_t now);
  void emit_lan(uint32_t node, uint32_t lan, int64_t now);
  void emit_lease(const Module& module, int64_t now);
  void emit_fault(FaultWhat what, uint32_t lan, int error, int64_t now);
  void note_send_error(uint32_t lan, int error, int64_t now);
  bool has_link(uint32_t lan, uint32_t node) const {
    return (config_.lans[lan].peers >> node & 1) != 0;
  }
  int64_t silent_at(const Link& link) const {
    const int64_t fresh = link.detector.freshness();
    return fresh > 0 ? fresh : link.deadline_first;
  }

  const uint64_t boot_;
  Port& port_;
  Config config_;
  HmacSha256 key_;
  Peer peers_[max_nodes];
  LeasePeer lease_peers_[max_nodes] = {};
  uint64_t nodes_ = 0;  // peers with an address on any network
  Module modules_[max_modules];
  uint32_t module_count_ = 0;
  int send_error_[max_lans] = {};

  uint64_t sequence_ = 0;
  int64_t next_send_ = 0;
  int64_t last_send_ = 0;
  int64_t planned_ = 0;  // the wake that was promised by next_wake
  int64_t judged_at_ = 0;
  int64_t doubt_until_ = 0;  // own lateness: suspect nobody before
  int64_t agent_alive_ = 0;
  bool hung_ = false;
  int64_t worst_lateness_ = 0;
  int64_t recent_lateness_[2] = {};  // this half minute and the one before
  int64_t recent_since_ = 0;

  uint64_t sent_ = 0, send_errors_ = 0, received_ = 0, bad_mac_ = 0, replayed_ = 0;
  uint64_t malformed_ = 0, foreign_ = 0, unproven_ = 0, leases_renewed_ = 0;
};

}  // namespace holdfast::beat
