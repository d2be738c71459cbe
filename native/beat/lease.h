#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>

#include "beat/limits.h"
#include "common/clock.h"

/** The lease rule of docs/internals/architecture.md, without state: what may be promised now. */
namespace holdfast::beat {

/** Values are those of the lease event. */
enum class LeaseWhy : uint8_t {
  ok = 0,
  agent_hung = 1,
  not_echoed = 2,
  excluded_by_view = 3,
  no_consent = 4,  // of a mirror: the peer's heartbeats do not let it live
};

/** What the rule needs to know of one other node. */
struct LeasePeer {
  int64_t last_heard_ns;  // arrival of its newest heartbeat on any network; 0: never
  int64_t echoed_ns;      // send time of the newest own heartbeat that it echoed; 0: none
};

struct LeaseInput {
  int64_t now_ns;
  int64_t last_send_ns;
  int64_t heartbeat_ns;
  int64_t suspect_ns;
  int64_t lease_ns;
  bool agent_hung;
  uint32_t me;
  uint64_t view_members;  // of this module
  uint64_t view_epoch;    // announced by the own agent
  uint64_t
      excluded_epoch;  // newest later view without this node that a heard node announced; 0: none
  // Nodes that stand for a view with this one, though they may be no members here: left out, and
  // not aware of it, they may still take this node for dead.
  uint64_t counted_by;
};

struct LeaseVerdict {
  /** Boot time at which the VIP must be silent; write it only when why is ok or not_echoed. */
  int64_t end_ns;
  LeaseWhy why;
};

/** The others may act at arrival + suspect; the address must be silent this much earlier. */
inline int64_t lease_margin_ns(int64_t suspect_ns) {
  return std::min(20 * ns_per_ms, suspect_ns / 10);
}

/**
 * Could that node take this one for dead and serve its clients? If it is heard; or if its newest
 * heartbeat already echoed nothing new, so that it lives and does not hear. One that is simply dead
 * echoed to the end and withholds nothing.
 */
inline bool lease_at_stake(const LeaseInput& in, const LeasePeer& peer, bool member) {
  if (peer.last_heard_ns == 0) return false;
  const int64_t silent = in.now_ns - peer.last_heard_ns;
  if (silent <= 2 * in.heartbeat_ns) return true;
  const bool deaf = peer.echoed_ns < peer.last_heard_ns - 2 * in.heartbeat_ns;
  return deaf && (member || silent <= in.suspect_ns);
}

/**
 * lease_end = min(last send + lease, min over the nodes for which lease_at_stake holds of
 * (send time of the newest own heartbeat that it echoed + suspect - margin)).
 * `peers` has max_nodes entries, by node id.
 */
inline LeaseVerdict lease_verdict(const LeaseInput& in, const LeasePeer* peers) {
  if (in.agent_hung) return {0, LeaseWhy::agent_hung};
  if (in.excluded_epoch > in.view_epoch) return {0, LeaseWhy::excluded_by_view};
  int64_t end = in.last_send_ns + in.lease_ns;
  const uint64_t others = (in.view_members | in.counted_by) & ~(uint64_t{1} << in.me);
  for (uint64_t rest = others; rest != 0; rest &= rest - 1) {
    const LeasePeer& peer = peers[std::countr_zero(rest)];
    const bool member = (in.view_members & rest & -rest) != 0;
    if (!lease_at_stake(in, peer, member)) continue;
    end = std::min(end, peer.echoed_ns + in.suspect_ns - lease_margin_ns(in.suspect_ns));
  }
  return {end, end > in.now_ns ? LeaseWhy::ok : LeaseWhy::not_echoed};
}

/** What the two rules of a mirror need to know. */
struct MirrorLeaseInput {
  int64_t now_ns;
  int64_t last_send_ns;
  int64_t lease_ns;
  int64_t agent_alive_ns;     // the agent's last sign of life
  int64_t agent_deadline_ns;  // the cluster's
  int64_t
      consented_ns;  // send time of the newest own heartbeat that a consenting one echoed; 0: none
  int64_t held_until_ns;  // what was promised already
};

/** The agent of a primary that goes alone must be no deader than its lease is long. */
inline LeaseVerdict lease_by_own_life(const MirrorLeaseInput& in) {
  const int64_t deadline = std::min(in.agent_deadline_ns, in.lease_ns);
  const bool lives = in.now_ns - std::min(in.agent_alive_ns, in.now_ns) <= deadline;
  const int64_t end =
      lives ? std::max(in.held_until_ns, in.last_send_ns + in.lease_ns) : in.held_until_ns;
  return {end, end > in.now_ns ? LeaseWhy::ok
               : lives         ? LeaseWhy::not_echoed
                               : LeaseWhy::agent_hung};
}

/**
 * The peer waits for longer than a lease from its last consenting heartbeat on, and what that one
 * echoed was sent before. What was promised before stands: it is no later than that.
 */
inline LeaseVerdict lease_by_consent(const MirrorLeaseInput& in) {
  const bool lives = in.now_ns - std::min(in.agent_alive_ns, in.now_ns) <= in.agent_deadline_ns;
  const bool counts = lives && in.consented_ns > 0;
  const int64_t end =
      counts ? std::max(in.held_until_ns, in.consented_ns + in.lease_ns) : in.held_until_ns;
  return {end, end > in.now_ns ? LeaseWhy::ok
               : lives         ? LeaseWhy::no_consent
                               : LeaseWhy::agent_hung};
}

}  // namespace holdfast::beat
