#include "beat/sockets.h"

#include <linux/bpf.h>
#include <netdb.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstring>

namespace holdfast::beat {
namespace {

constexpr int dscp_cs6 = 48 << 2;
// The highest priority that needs no capability (socket(7)).
constexpr int send_priority = 6;
constexpr int receive_buffer = 512 * 1024;

long bpf(bpf_cmd command, bpf_attr& attr) {
  return syscall(SYS_bpf, command, &attr, sizeof attr);
}

template <typename T>
bool set(const Fd& fd, int level, int option, T value) {
  return setsockopt(fd.get(), level, option, &value, sizeof value) == 0;
}

}  // namespace

Result<SocketAddress> parse_address(const char* text, uint16_t port) {
  using R = Result<SocketAddress>;
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(text, nullptr, &hints, &found) != 0) return R::failure(EINVAL, "getaddrinfo");
  SocketAddress address{};
  std::memset(&address, 0, sizeof address);
  std::memcpy(&address, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  if (address.plain.sa_family == AF_INET6) {
    address.v6.sin6_port = htons(port);
  } else {
    address.v4.sin_port = htons(port);
  }
  return R::success(address);
}

Result<Fd> open_heartbeat_socket(const SocketAddress& local) {
  using R = Result<Fd>;
  const bool v6 = local.plain.sa_family == AF_INET6;
  Fd fd(socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return R::failure(errno, "socket");
  const bool marked =
      v6 ? set(fd, IPPROTO_IPV6, IPV6_TCLASS, dscp_cs6) && set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)
         : set(fd, IPPROTO_IP, IP_TOS, dscp_cs6);
  if (!marked || !set(fd, SOL_SOCKET, SO_PRIORITY, send_priority) ||
      !set(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1) || !set(fd, SOL_SOCKET, SO_RCVBUF, receive_buffer)) {
    return R::failure(errno, "setsockopt");
  }
  if (bind(fd.get(), &local.plain, address_size(local)) != 0) return R::failure(errno, "bind");
  return R::success(std::move(fd));
}

Result<LeaseMap> open_lease_map(const char* path) {
  using R = Result<LeaseMap>;
  bpf_attr get{};
  get.pathname = reinterpret_cast<uint64_t>(path);
  const Fd fd(static_cast<int>(bpf(BPF_OBJ_GET, get)));
  if (!fd.valid()) return R::failure(errno, "BPF_OBJ_GET");
  bpf_map_info info{};
  bpf_attr ask{};
  ask.info.bpf_fd = static_cast<uint32_t>(fd.get());
  ask.info.info_len = sizeof info;
  ask.info.info = reinterpret_cast<uint64_t>(&info);
  if (bpf(BPF_OBJ_GET_INFO_BY_FD, ask) != 0) return R::failure(errno, "BPF_OBJ_GET_INFO_BY_FD");
  if (info.type != BPF_MAP_TYPE_ARRAY || info.value_size != 8 || info.max_entries != max_slots) {
    return R::failure(EINVAL, "BPF_OBJ_GET_INFO_BY_FD");
  }
  void* words = mmap(nullptr, max_slots * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (words == MAP_FAILED) return R::failure(errno, "mmap");
  return R::success({static_cast<uint64_t*>(words), info.id});
}

void close_lease_map(uint64_t* words) {
  if (words != nullptr) munmap(words, max_slots * 8);
}

}  // namespace holdfast::beat
