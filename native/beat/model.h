#pragma once
#include <netinet/in.h>

#include <cstdint>

#include "beat/limits.h"

/** What the agent tells the heartbeat thread. Plain values: they cross threads by copy. */
namespace holdfast::beat {

union SocketAddress {
  sockaddr plain;
  sockaddr_in v4;
  sockaddr_in6 v6;
};

struct LanConfig {
  int socket = -1;     // open and bound; -1: could not be (yet)
  int bind_error = 0;  // errno of the last attempt
  SocketAddress local{};
  uint64_t peers = 0;  // nodes that have an address here
  SocketAddress address[max_nodes]{};
};

struct Config {
  uint64_t generation = 0;
  uint64_t cluster = 0;
  uint8_t key[32] = {};
  uint32_t me = 0;
  uint32_t lan_count = 0;
  int64_t heartbeat_ns = 0;
  int64_t suspect_ns = 0;
  int64_t lease_ns = 0;
  int64_t agent_deadline_ns = 0;
  uint64_t bind_retries = 0;
  uint64_t* lease_map = nullptr;  // max_slots words; nullptr: no leases
  int lease_map_error = 0;
  LanConfig lans[max_lans];

  bool configured() const { return heartbeat_ns > 0; }
};

/** By what the lease of a module is renewed; docs/internals/heartbeat.md, "Leases". */
enum class LeaseRule : uint32_t {
  view = 0,  // of a farm: lease.h
  off = 1,   // not at all: the slots are 0
  own = 2,   // as long as the agent lives
  peer = 3,  // to the newest own heartbeat that a consenting one of `peer` echoes, plus the lease
};

/** src/native/beat-commands.ts writes these into the shared memory. */
struct ModuleConfig {
  uint32_t key;
  uint32_t flags;
  uint64_t view_epoch;
  uint64_t view_members;
  uint64_t slots;  // bit n: slot n of the lease map
  LeaseRule rule;
  uint32_t peer;      // rule peer
  uint64_t lease_ns;  // rules own and peer
};

inline constexpr uint32_t module_running = 1;
/** Of a farm: its filter may accept new clients. */
inline constexpr uint32_t module_open = 8;
/** Of a mirror: the lease of the addressee may live by this heartbeat. */
inline constexpr uint32_t module_consent = 8;

inline constexpr uint64_t longest_ns = 3600 * uint64_t{1'000'000'000};

struct Announcement {
  uint64_t number = 0;  // grows with each one, also from one agent to the next
  uint32_t count = 0;
  uint32_t zero = 0;
  ModuleConfig modules[max_modules] = {};
};
static_assert(sizeof(ModuleConfig) == 48 && sizeof(Announcement) == 16 + max_modules * 48);

/** Whether an announcement can be acted upon; the agent wrote it, in memory that it shares. */
inline bool makes_sense(const Announcement& announcement) {
  if (announcement.count > max_modules) return false;
  for (uint32_t i = 0; i < announcement.count; i++) {
    const ModuleConfig& module = announcement.modules[i];
    if (module.rule > LeaseRule::peer || module.peer >= max_nodes) return false;
    const bool timed = module.rule == LeaseRule::own || module.rule == LeaseRule::peer;
    if (timed && (module.lease_ns == 0 || module.lease_ns > longest_ns)) return false;
  }
  return true;
}

}  // namespace holdfast::beat
