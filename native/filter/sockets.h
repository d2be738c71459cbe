#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/fd.h"
#include "filter/farm_abi.h"

namespace holdfast::filter {

/** Bit n: bucket n has a local TCP socket. */
using BucketMap = std::vector<uint8_t>;
inline constexpr size_t bucket_map_bytes = FARM_BUCKETS / 8;

/** A sock_diag socket; it belongs to the network namespace of the thread that opens it. */
Fd open_sock_diag(std::string* why);

/**
 * Walks the TCP sockets (IPv4 and IPv6, every state but LISTEN, CLOSE and TIME_WAIT; half-open
 * ones included) and marks, in the table of the first rule that matches, the bucket of each whose
 * local address is a VIP. The same hash as the filter's.
 * @param socket of open_sock_diag; @param config which VIPs, rules and key
 * @param maps one BucketMap per table, filled here
 */
bool walk_sockets(int socket, const farm_config& config, std::vector<BucketMap>* maps,
                  std::string* why);

/** One socket as sock_diag reports it: addresses and ports in network order. For walk_sockets. */
struct DiagSocket {
  uint8_t family = 0; /* AF_INET, AF_INET6 */
  uint32_t local[4]{};
  uint32_t remote[4]{};
  uint16_t local_port = 0;
  uint16_t remote_port = 0;
};

/** Marks one socket; false when it is not the farm's. */
bool mark_socket(const farm_config& config, const DiagSocket& socket, std::vector<BucketMap>* maps);

}  // namespace holdfast::filter
