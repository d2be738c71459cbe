#pragma once
#include <cstddef>
#include <cstdint>

#include "beat/limits.h"

/**
 * Commands of the agent to holdfastd on fd 3, little endian: CommandHeader, then `size` bytes.
 * src/native/beat.ts writes them. The other direction carries doorbells only, bytes without
 * meaning: "there are events". What the agent announces is in the shared memory (shm.h) when
 * `announce` is sent, which has no content and only wakes the heartbeat thread.
 */
namespace holdfast::beat {

enum class CommandType : uint32_t { hello = 1, configure = 2, announce = 3, ready = 4 };

struct CommandHeader {
  uint32_t size;
  uint32_t type;
};

/** configure: this, lan_count x CommandLan, peer_count x CommandPeer, path of the lease map. */
struct CommandConfigure {
  uint64_t cluster;
  uint8_t key[32];
  uint32_t me;
  uint32_t lan_count;
  uint32_t peer_count;
  uint32_t lease_map_size;  // bytes of the path, without a terminating zero; 0: no map
  uint64_t heartbeat_ns;
  uint64_t suspect_ns;
  uint64_t lease_ns;
  uint64_t agent_deadline_ns;
};

struct CommandLan {
  char local[56];  // numeric address, zero-terminated
  uint16_t port;
  uint8_t zero[6];
};

struct CommandPeer {
  char address[56];
  uint8_t lan;
  uint8_t node;
  uint8_t zero[6];
};

static_assert(sizeof(CommandConfigure) == 88 && offsetof(CommandConfigure, heartbeat_ns) == 56);
static_assert(sizeof(CommandLan) == 64 && sizeof(CommandPeer) == 64);

inline constexpr size_t lease_map_path_max = 256;
inline constexpr size_t command_max = sizeof(CommandConfigure) + max_lans * sizeof(CommandLan) +
                                      max_lans * max_nodes * sizeof(CommandPeer) +
                                      lease_map_path_max;

}  // namespace holdfast::beat
