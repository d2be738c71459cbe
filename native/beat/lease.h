#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>

#include "beat/limits.h"
#include "common/clock.h"

/** The lease rule of docs/internals/architecture.md, without state: what may be promised now. */
namespace holdfast::beat {

/** Values are those of the lease event. */
enum class LeaseWhy : uint8_t { ok = 0, agent_hung = 1, not_echoed = 2, excluded_by_view = 3 };

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
 * lease_end = min(last send + lease, min over members heard within two heartbeats of
 * (send time of the newest own heartbeat that the member echoed + suspect - margin)).
 * `peers` has max_nodes entries, by node id.
 */
inline LeaseVerdict lease_verdict(const LeaseInput& in, const LeasePeer* peers) {
  if (in.agent_hung) return {0, LeaseWhy::agent_hung};
  if (in.excluded_epoch > in.view_epoch) return {0, LeaseWhy::excluded_by_view};
  int64_t end = in.last_send_ns + in.lease_ns;
  for (uint64_t rest = in.view_members & ~(uint64_t{1} << in.me); rest != 0; rest &= rest - 1) {
    const LeasePeer& peer = peers[std::countr_zero(rest)];
    const bool heard =
        peer.last_heard_ns > 0 && in.now_ns - peer.last_heard_ns <= 2 * in.heartbeat_ns;
    if (heard) end = std::min(end, peer.echoed_ns + in.suspect_ns - lease_margin_ns(in.suspect_ns));
  }
  return {end, end > in.now_ns ? LeaseWhy::ok : LeaseWhy::not_echoed};
}

}  // namespace holdfast::beat
