#pragma once
#include <cstdint>

#include "beat/model.h"
#include "common/fd.h"
#include "common/result.h"

/** System calls around sockets and maps that may block: for the main thread only. */
namespace holdfast::beat {

/**
 * Parses a numeric IPv4 or IPv6 address (`fe80::1%eth0` too). Error: EINVAL. Unused bytes are
 * zero, so that addresses compare by their bytes.
 */
Result<SocketAddress> parse_address(const char* text, uint16_t port);

/**
 * A non-blocking UDP socket bound to `local`: kernel receive timestamps on, DSCP CS6 (RFC 4594,
 * network control) so that heartbeats pass a congested network first.
 */
Result<Fd> open_heartbeat_socket(const SocketAddress& local);

/** Bytes of the address proper, for the socket calls. */
inline socklen_t address_size(const SocketAddress& address) {
  return address.plain.sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
}

/** The pinned lease map in this process's memory. */
struct LeaseMap {
  uint64_t* words = nullptr;  // max_slots of them
  uint32_t id = 0;            // the kernel's id of the map: tells a map from its successor
};

/** Opens the BPF array map pinned at `path` and maps it. Error EINVAL: it has another shape. */
Result<LeaseMap> open_lease_map(const char* path);
void close_lease_map(uint64_t* words);

}  // namespace holdfast::beat
