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

struct ModuleConfig {
  uint32_t key;
  uint32_t flags;
  uint64_t view_epoch;
  uint64_t view_members;
  uint64_t slots;  // bit n: slot n of the lease map
};

inline constexpr uint32_t module_running = 1;
/** Its filter may accept new clients. */
inline constexpr uint32_t module_open = 8;

struct Announcement {
  uint32_t count = 0;
  ModuleConfig modules[max_modules] = {};
};

}  // namespace holdfast::beat
