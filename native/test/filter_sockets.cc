#include <arpa/inet.h>
#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <string>

#include "filter/farm_hash.h"
#include "filter/pins.h"
#include "filter/sockets.h"

using holdfast::filter::bucket_map_bytes;
using holdfast::filter::BucketMap;
using holdfast::filter::DiagSocket;
using holdfast::filter::mark_socket;

namespace {

/* VIPs 10.0.0.100 and fd00::100; TCP 80 on_port in table 0, 8000 to 8999 on_addr in table 1. */
std::unique_ptr<farm_config> farm() {
  auto config = std::make_unique<farm_config>();
  memset(config.get(), 0, sizeof(*config));
  config->hash_key[0] = 7;
  config->vip_count = 2;
  config->table_count = 2;
  config->rule_count = 3;
  inet_pton(AF_INET, "10.0.0.100", &config->vip4[0]);
  inet_pton(AF_INET6, "fd00::100", config->vip6[1]);
  config->rules[0] = {.vip_mask = 3,
                      .port_low = 80,
                      .port_high = 80,
                      .proto = IPPROTO_UDP,
                      .hash = FARM_ON_PORT,
                      .table = 1,
                      .index = 0};
  config->rules[1] = {.vip_mask = 3,
                      .port_low = 80,
                      .port_high = 80,
                      .proto = IPPROTO_TCP,
                      .hash = FARM_ON_PORT,
                      .table = 0,
                      .index = 0};
  config->rules[2] = {.vip_mask = 2,
                      .port_low = 8000,
                      .port_high = 8999,
                      .proto = IPPROTO_TCP,
                      .hash = FARM_ON_ADDR,
                      .table = 1,
                      .index = 0};
  return config;
}

DiagSocket socket_of(int family, const char* local, uint16_t local_port, const char* remote,
                     uint16_t remote_port) {
  DiagSocket socket;
  socket.family = static_cast<uint8_t>(family);
  inet_pton(family, local, socket.local);
  inet_pton(family, remote, socket.remote);
  socket.local_port = htons(local_port);
  socket.remote_port = htons(remote_port);
  return socket;
}

std::vector<BucketMap> empty() {
  return {2, BucketMap(bucket_map_bytes, 0)};
}

unsigned marked(const BucketMap& map) {
  unsigned count = 0;
  for (uint8_t byte : map) count += static_cast<unsigned>(__builtin_popcount(byte));
  return count;
}

bool has(const BucketMap& map, uint32_t bucket) {
  return (map[bucket / 8] & (1u << (bucket % 8))) != 0;
}

}  // namespace

TEST_CASE("sockets: IPv4 by address and port") {
  auto config = farm();
  auto maps = empty();
  CHECK(mark_socket(*config, socket_of(AF_INET, "10.0.0.100", 80, "10.0.0.7", 4000), &maps));
  uint32_t client = inet_addr("10.0.0.7");
  CHECK(has(maps[0], farm_bucket4(config->hash_key, client, htons(4000))));
  CHECK(marked(maps[0]) == 1);
  CHECK(marked(maps[1]) == 0);
}

TEST_CASE("sockets: an IPv4 connection of a dual-stack socket is the same bucket") {
  auto config = farm();
  auto maps = empty();
  CHECK(mark_socket(*config, socket_of(AF_INET6, "::ffff:10.0.0.100", 80, "::ffff:10.0.0.7", 4000),
                    &maps));
  uint32_t client = inet_addr("10.0.0.7");
  CHECK(has(maps[0], farm_bucket4(config->hash_key, client, htons(4000))));
}

TEST_CASE("sockets: IPv6, a range, by address only") {
  auto config = farm();
  auto maps = empty();
  CHECK(mark_socket(*config, socket_of(AF_INET6, "fd00::100", 8999, "fd00::7", 4000), &maps));
  CHECK(mark_socket(*config, socket_of(AF_INET6, "fd00::100", 8000, "fd00::7", 4001), &maps));
  CHECK(marked(maps[0]) == 0);
  CHECK(marked(maps[1]) == 1);
}

TEST_CASE("sockets: what is not the farm's is not counted") {
  auto config = farm();
  auto maps = empty();
  CHECK_FALSE(mark_socket(*config, socket_of(AF_INET, "10.0.0.1", 80, "10.0.0.7", 1), &maps));
  CHECK_FALSE(mark_socket(*config, socket_of(AF_INET, "10.0.0.100", 22, "10.0.0.7", 1), &maps));
  CHECK_FALSE(mark_socket(*config, socket_of(AF_INET, "10.0.0.100", 8000, "10.0.0.7", 1), &maps));
  CHECK_FALSE(mark_socket(*config, socket_of(AF_INET, "0.0.0.0", 80, "10.0.0.7", 1), &maps));
  CHECK_FALSE(mark_socket(*config, socket_of(AF_INET6, "::", 80, "fd00::7", 1), &maps));
  CHECK(marked(maps[0]) + marked(maps[1]) == 0);
}

TEST_CASE("sockets: the kernel's own list is walked to its end") {
  auto config = farm();
  std::string why;
  auto socket = holdfast::filter::open_sock_diag(&why);
  REQUIRE_MESSAGE(socket.valid(), why);
  std::vector<BucketMap> maps;
  CHECK_MESSAGE(holdfast::filter::walk_sockets(socket.get(), *config, &maps, &why), why);
  CHECK(maps.size() == 2);
}

TEST_CASE("pins: names of devices become names that bpffs takes") {
  CHECK(holdfast::filter::device_dir("/sys/fs/bpf/holdfast", "eth0.10") ==
        "/sys/fs/bpf/holdfast/eth0@10");
}
