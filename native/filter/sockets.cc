#include "filter/sockets.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "filter/farm_hash.h"
#include "filter/pins.h"

namespace holdfast::filter {

namespace {

/* TCP_NEW_SYN_RECV of the kernel's include/net/tcp_states.h: half-open, in no libc header. */
constexpr unsigned tcp_new_syn_recv = 12;
constexpr unsigned every_state = (1u << (tcp_new_syn_recv + 1)) - 2;
/* Not TIME_WAIT either: both ends have said all and know it, and a server that closes first has
 * thousands of them for a minute. Those that still wait for the client's FIN are reported as
 * FIN_WAIT2 (tw_substate in the kernel's net/ipv4/inet_diag.c) and count. */
constexpr unsigned wanted_states =
    every_state & ~(1u << TCP_LISTEN) & ~(1u << TCP_CLOSE) & ~(1u << TCP_TIME_WAIT);

bool is_v4_mapped(const uint32_t* a) {
  return a[0] == 0 && a[1] == 0 && a[2] == htonl(0xffff);
}

int vip_of(const farm_config& config, bool v4, const uint32_t* addr) {
  for (unsigned i = 0; i < config.vip_count; i++) {
    if (v4 ? config.vip4[i] == addr[0] && addr[0] != 0
           : memcmp(config.vip6[i], addr, 16) == 0 &&
                 (config.vip6[i][0] | config.vip6[i][1]) != 0) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

bool ask(int socket, uint8_t family, std::string* why) {
  struct {
    nlmsghdr header;
    inet_diag_req_v2 request;
  } message{};
  message.header.nlmsg_len = sizeof(message);
  message.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  message.request.sdiag_family = family;
  message.request.sdiag_protocol = IPPROTO_TCP;
  message.request.idiag_states = wanted_states;
  if (send(socket, &message, sizeof(message), 0) == sizeof(message)) return true;
  *why = sentence("cannot ask for the list of sockets", errno);
  return false;
}

void take(const inet_diag_msg& m, const farm_config& config, std::vector<BucketMap>* maps) {
  DiagSocket socket;
  socket.family = m.idiag_family;
  memcpy(socket.local, m.id.idiag_src, 16);
  memcpy(socket.remote, m.id.idiag_dst, 16);
  socket.local_port = m.id.idiag_sport;
  socket.remote_port = m.id.idiag_dport;
  mark_socket(config, socket, maps);
}

/* Reads one dump to its end. 0: done, else the errno. */
int read_dump(int socket, const farm_config& config, std::vector<BucketMap>* maps) {
  alignas(nlmsghdr) char buffer[32768];
  for (;;) {
    ssize_t got = recv(socket, buffer, sizeof(buffer), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got == 0 ? EPIPE : errno;
    auto left = static_cast<unsigned>(got);
    for (auto* h = reinterpret_cast<nlmsghdr*>(buffer); NLMSG_OK(h, left);
         h = NLMSG_NEXT(h, left)) {
      if (h->nlmsg_type == NLMSG_DONE) return 0;
      if (h->nlmsg_type == NLMSG_ERROR) {
        return h->nlmsg_len < NLMSG_LENGTH(sizeof(nlmsgerr))
                   ? EPROTO
                   : -static_cast<const nlmsgerr*>(NLMSG_DATA(h))->error;
      }
      if (h->nlmsg_len < NLMSG_LENGTH(sizeof(inet_diag_msg))) return EPROTO;
      take(*static_cast<const inet_diag_msg*>(NLMSG_DATA(h)), config, maps);
    }
  }
}

}  // namespace

Fd open_sock_diag(std::string* why) {
  Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  /* The kernel answers at once; a dump that stalls must not hold a worker thread for ever. */
  timeval limit{.tv_sec = 5, .tv_usec = 0};
  if (!socket.valid() ||
      setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0) {
    *why = sentence("cannot open a sock_diag socket", errno);
    return {};
  }
  return socket;
}

bool mark_socket(const farm_config& config, const DiagSocket& socket,
                 std::vector<BucketMap>* maps) {
  bool mapped = socket.family == AF_INET6 && is_v4_mapped(socket.local);
  bool v4 = socket.family == AF_INET || mapped;
  const uint32_t* local = mapped ? socket.local + 3 : socket.local;
  const uint32_t* remote = mapped ? socket.remote + 3 : socket.remote;
  int vip = vip_of(config, v4, local);
  if (vip < 0) return false;
  uint16_t port = ntohs(socket.local_port);
  for (unsigned i = 0; i < config.rule_count; i++) {
    const farm_rule& rule = config.rules[i];
    if (rule.proto != IPPROTO_TCP || (rule.vip_mask & (1u << vip)) == 0 || port < rule.port_low ||
        port > rule.port_high) {
      continue;
    }
    uint16_t extra = rule.hash == FARM_ON_PORT ? socket.remote_port : uint16_t{0};
    uint32_t bucket = v4 ? farm_bucket4(config.hash_key, remote[0], extra)
                         : farm_bucket6(config.hash_key, remote, extra);
    (*maps)[rule.table][bucket / 8] |= static_cast<uint8_t>(1u << (bucket % 8));
    return true;
  }
  return false;
}

bool walk_sockets(int socket, const farm_config& config, std::vector<BucketMap>* maps,
                  std::string* why) {
  maps->assign(config.table_count, BucketMap(bucket_map_bytes, 0));
  for (uint8_t family : {uint8_t{AF_INET}, uint8_t{AF_INET6}}) {
    if (!ask(socket, family, why)) return false;
    if (int error = read_dump(socket, config, maps)) {
      if (family == AF_INET6 && error == ENOENT) return true; /* a kernel without IPv6 */
      *why = sentence("the list of sockets could not be read", error);
      return false;
    }
  }
  return true;
}

}  // namespace holdfast::filter
