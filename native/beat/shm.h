#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "beat/limits.h"
#include "beat/model.h"
#include "common/seqlock.h"
#include "common/spsc_ring.h"

/**
 * The memory that holdfastd and its agent share: a memfd of sizeof(Shared) bytes, made once per
 * holdfastd, given to each agent as fd 4. src/native/beat.ts decodes Event and Stats; the addon
 * exports the offsets it was built with and a test compares them.
 */
namespace holdfast::beat {

inline constexpr uint32_t shm_magic = 0x48464d32;
inline constexpr uint32_t ring_capacity = 4096;

enum class EventKind : uint8_t { peer = 1, module = 2, lan = 3, lease = 4, fault = 5 };
enum class Reach : uint8_t { silent = 0, heard = 1, both = 2 };
enum class FaultWhat : uint8_t { bind = 1, send = 2, lease_map = 3 };

struct Event {
  EventKind kind;
  uint8_t node;    // peer, module, lan
  uint8_t lan;     // lan, fault
  uint8_t value;   // peer: Reach; lan: 1 up; lease: 1 renewing; fault: FaultWhat
  uint8_t hung;    // peer
  uint8_t why;     // lease: LeaseWhy
  uint16_t error;  // fault: errno, 0 when it is over
  uint32_t key;    // module, lease
  uint32_t flags;  // module
  uint64_t at_ns;
  uint64_t boot;          // peer
  uint64_t view_epoch;    // module
  uint64_t view_members;  // module
  uint64_t heard_ns;      // peer: arrival of its newest heartbeat on any network; 0: never heard
};
static_assert(sizeof(Event) == 56 && offsetof(Event, key) == 8 && offsetof(Event, at_ns) == 16);

struct StatsRow {
  uint8_t node;
  uint8_t lan;
  uint8_t up;
  uint8_t zero;
  uint32_t rtt_us;
  uint32_t jitter_us;
  uint32_t longest_burst;
  uint32_t peer_lateness_us;
  uint32_t zero2;
  uint64_t last_heard_ns;
  uint64_t received;
  uint64_t lost;
};
static_assert(sizeof(StatsRow) == 48 && offsetof(StatsRow, last_heard_ns) == 24);

inline constexpr size_t max_rows = max_nodes * max_lans;

struct Stats {
  uint64_t boot;
  uint64_t sent;
  uint64_t send_errors;
  uint64_t received;
  uint64_t bad_mac;
  uint64_t replayed;
  uint64_t malformed;
  uint64_t foreign;
  uint64_t unproven;
  uint64_t events_lost;
  uint64_t bind_retries;
  uint64_t leases_renewed;
  uint64_t worst_lateness_us;
  uint32_t realtime;
  uint32_t locked;
  uint32_t agent_restarts;
  uint32_t row_count;
  StatsRow rows[max_rows];
};
static_assert(offsetof(Stats, realtime) == 104 && offsetof(Stats, rows) == 120);

/** Bytes of Stats that are in use. */
inline constexpr size_t stats_bytes(uint32_t row_count) {
  return offsetof(Stats, rows) + row_count * sizeof(StatsRow);
}

struct Shared {
  uint32_t magic;
  uint32_t size;
  /** Agent: boot time of its last sign of life. */
  alignas(64) std::atomic<uint64_t> agent_alive_ns;
  /** Set by the heartbeat thread when it rings, cleared by the agent before it drains. */
  alignas(64) std::atomic<uint32_t> rung;
  /**
   * Agent: what it announces. It is here and not a command, so that what was withdrawn is in no
   * heartbeat that answers one which arrived later, however late the main thread is.
   */
  Seqlock<Announcement> announcement;
  /** Number of the newest announcement that the heartbeat thread acts by. */
  alignas(64) std::atomic<uint64_t> announced;
  SpscRing<Event, ring_capacity> events;
  Seqlock<Stats> stats;
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

}  // namespace holdfast::beat
