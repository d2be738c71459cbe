#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

#include "beat/limits.h"
#include "common/sha256.h"

/**
 * Heartbeat, version 1. One datagram:
 *
 *   WireHeader | WireEcho x lan_count | WireModule x module_count | tag (16 bytes)
 *
 * Little endian, no padding, at most 1056 bytes (fits the smallest IPv6 MTU). The tag is
 * HMAC-SHA256 over everything before it, truncated (RFC 2104, 5). A datagram is for one addressee
 * on one network: `to` and `lan` are part of what the tag covers, so that a copy sent to another
 * node or network is refused.
 */
namespace holdfast::beat {

static_assert(std::endian::native == std::endian::little, "the wire is little endian");

inline constexpr uint32_t wire_magic = 0x31424648;  // "HFB1"
inline constexpr uint8_t wire_version = 1;
inline constexpr uint8_t wire_flag_hung = 1;
inline constexpr size_t wire_tag_size = 16;

struct WireHeader {
  uint32_t magic;
  uint8_t version;
  uint8_t flags;
  uint8_t lan_count;
  uint8_t module_count;
  uint64_t cluster;
  uint8_t from;
  uint8_t to;
  uint8_t lan;
  uint8_t zero;
  uint32_t lateness_us;         // worst lateness of the sender's timer in the last minute
  uint64_t boot;                // random number of the sender's boot of holdfastd
  uint64_t sequence;            // counts the sender's heartbeats, the same on all networks
  uint64_t sent_ns;             // sender's CLOCK_BOOTTIME
  uint64_t next_ns;             // when the sender will send the next one, same clock
  uint64_t echo_boot;           // boot of the addressee that the echoes speak of; 0: none accepted
  uint64_t challenge_boot;      // boot of the addressee that is heard but not yet proven; 0: none
  uint64_t challenge_sequence;  // newest sequence heard of that boot
};

/** What the sender last heard of the addressee on one network; sequence 0: nothing. */
struct WireEcho {
  uint64_t sequence;
  uint64_t sent_ns;  // the addressee's own clock, given back
  uint32_t held_us;  // how long the sender held it: the round trip without this is the network's
  uint32_t zero;
};

struct WireModule {
  uint32_t key;
  uint32_t flags;
  uint64_t view_epoch;
  uint64_t view_members;
};

static_assert(sizeof(WireHeader) == 80 && offsetof(WireHeader, boot) == 24);
static_assert(offsetof(WireHeader, challenge_sequence) == 72);
static_assert(sizeof(WireEcho) == 24 && sizeof(WireModule) == 24);

inline constexpr size_t wire_min_size = sizeof(WireHeader) + sizeof(WireEcho) + wire_tag_size;
inline constexpr size_t wire_max_size = sizeof(WireHeader) + max_lans * sizeof(WireEcho) +
                                        max_modules * sizeof(WireModule) + wire_tag_size;
static_assert(wire_max_size == 1056);

/** A heartbeat in memory. */
struct Heartbeat {
  WireHeader header;
  WireEcho echoes[max_lans];
  WireModule modules[max_modules];
};

/** Why a datagram was dropped; nothing but a counter changes. */
enum class WireFault : uint8_t { none, malformed, foreign, bad_mac };

/**
 * Writes the datagram (at most wire_max_size bytes) and returns its size. magic and version are
 * filled in; lan_count and module_count must be within their limits.
 */
size_t encode(const Heartbeat& beat, const HmacSha256& key, uint8_t* out);

/**
 * Reads a datagram. `out` is whole when the result is `none` and undefined otherwise. Checks, in
 * this order: size and magic (malformed), cluster (foreign), counts against the exact size
 * (malformed), tag (bad_mac). What is read was therefore written by a holder of the key.
 */
WireFault decode(const uint8_t* data, size_t size, uint64_t cluster, const HmacSha256& key,
                 Heartbeat& out);

}  // namespace holdfast::beat
