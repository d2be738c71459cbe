#include "link/sockets.h"

#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <vector>

#include "link/netlink.h"

namespace holdfast::link {
namespace {

constexpr uint32_t states =
    ~(uint32_t{1} << TCP_LISTEN | uint32_t{1} << TCP_TIME_WAIT | uint32_t{1} << TCP_CLOSE);

/** Does the socket's local address match? An IPv6 socket may hold an IPv4 one as ::ffff:a.b.c.d. */
bool is_at(const inet_diag_msg& socket, const Address& address) {
  const void* source = socket.id.idiag_src;
  if (socket.idiag_family == address.family) {
    return std::memcmp(source, address.bytes.data(), address.size()) == 0;
  }
  if (socket.idiag_family != AF_INET6) return false;
  static constexpr uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  const auto* bytes = static_cast<const uint8_t*>(source);
  return std::memcmp(bytes, mapped, sizeof mapped) == 0 &&
         std::memcmp(bytes + sizeof mapped, address.bytes.data(), 4) == 0;
}

Result<int> find(Netlink& diag, uint8_t family, const Address& address,
                 std::vector<inet_diag_msg>& found) {
  Message<inet_diag_req_v2> message(SOCK_DIAG_BY_FAMILY, 0);
  message.body().sdiag_family = family;
  message.body().sdiag_protocol = IPPROTO_TCP;
  message.body().idiag_states = states;
  return diag.dump(message.header(), "SOCK_DIAG_BY_FAMILY", [&](const nlmsghdr* each) {
    if (each->nlmsg_len < NLMSG_LENGTH(sizeof(inet_diag_msg))) return;
    const auto& socket = *static_cast<const inet_diag_msg*>(NLMSG_DATA(each));
    if (is_at(socket, address)) found.push_back(socket);
  });
}

}  // namespace

Result<int> reset_connections(const Address& address) {
  Netlink diag(NETLINK_SOCK_DIAG);
  std::vector<inet_diag_msg> found;
  Result<int> result = find(diag, AF_INET6, address, found);
  if (address.family == AF_INET && (result.ok() || result.error == ENOENT)) {
    result = find(diag, AF_INET, address, found);
  }
  if (!result.ok()) return result;
  int count = 0;
  for (const inet_diag_msg& socket : found) {
    Message<inet_diag_req_v2> message(SOCK_DESTROY, 0);
    message.body().sdiag_family = socket.idiag_family;
    message.body().sdiag_protocol = IPPROTO_TCP;
    message.body().id = socket.id;
    const Result<int> destroyed = diag.request(message.header(), "SOCK_DESTROY");
    // ENOENT: it ended by itself meanwhile.
    if (!destroyed.ok() && destroyed.error != ENOENT) return destroyed;
    if (destroyed.ok()) count++;
  }
  return Result<int>::success(count);
}

}  // namespace holdfast::link
