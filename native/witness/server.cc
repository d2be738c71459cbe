#include "witness/server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "common/clock.h"

namespace holdfast::witness {
namespace {

struct Address {
  sockaddr_storage bytes{};
  socklen_t size = 0;
};

bool parse_address(const std::string& text, Address& address) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return false;
  uint16_t port = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + colon + 1, end, port);
  if (parsed.ec != std::errc() || parsed.ptr != end) return false;
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    auto* six = reinterpret_cast<sockaddr_in6*>(&address.bytes);
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(port);
    address.size = sizeof *six;
    return inet_pton(AF_INET6, host.c_str(), &six->sin6_addr) == 1;
  }
  auto* four = reinterpret_cast<sockaddr_in*>(&address.bytes);
  four->sin_family = AF_INET;
  four->sin_port = htons(port);
  address.size = sizeof *four;
  return inet_pton(AF_INET, host.c_str(), &four->sin_addr) == 1;
}

bool set_option(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

Result<Fd> listen_on(const std::string& text) {
  Address address;
  if (!parse_address(text, address)) return Result<Fd>::failure(EINVAL, "--listen");
  Fd fd(socket(address.bytes.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Result<Fd>::failure(errno, "socket");
  set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (address.bytes.ss_family == AF_INET6) set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.bytes), address.size) != 0) {
    return Result<Fd>::failure(errno, "bind");
  }
  if (listen(fd.get(), 128) != 0) return Result<Fd>::failure(errno, "listen");
  return Result<Fd>::success(std::move(fd));
}

/** A client that is gone without a word is noticed within half a minute. */
void set_up(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 15);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 15'000);
}

bool watch(const Fd& epoll, int fd, uint32_t events, int how) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  return epoll_ctl(epoll.get(), how, fd, &event) == 0;
}

}  // namespace

const TlsIdentity* Server::choose(void* self, const char* name) {
  Cluster* cluster = static_cast<Server*>(self)->clusters_.find(name);
  return cluster == nullptr ? nullptr : &cluster->identity;
}

Result<bool> Server::open(const ServerOptions& options) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signals_.reset(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!signals_.valid()) return Result<bool>::failure(errno, "signalfd");
  auto opened = clusters_.open(options.state);
  if (opened.ok()) opened = chooser_.open_chooser(choose, this);
  if (!opened.ok()) return opened;
  auto listening = listen_on(options.listen);
  if (!listening.ok()) return Result<bool>::failure(listening.error, listening.call);
  listener_ = std::move(listening.value);
  epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid() || !watch(epoll_, listener_.get(), EPOLLIN, EPOLL_CTL_ADD) ||
      !watch(epoll_, signals_.get(), EPOLLIN, EPOLL_CTL_ADD)) {
    return Result<bool>::failure(errno, "epoll");
  }
  return Result<bool>::success(true);
}

uint16_t Server::port() const {
  sockaddr_storage bytes{};
  socklen_t size = sizeof bytes;
  if (getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&bytes), &size) != 0) return 0;
  // The port is at the same place in both families.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&bytes)->sin_port);
}

int Server::run() {
  epoll_event events[32];
  for (;;) {
    const int count = epoll_wait(epoll_.get(), events, 32, wait_ms());
    if (count < 0 && errno != EINTR) return 1;
    for (int at = 0; at < count; at++) {
      const int fd = events[at].data.fd;
      if (fd == signals_.get()) return 0;
      if (fd == listener_.get()) {
        accept_all();
      } else {
        serve(fd);
      }
    }
    drop_late();
    if (clusters_.is_broken()) {
      // What the disk holds is not known any more: the next process reads it.
      fprintf(stderr, "holdfast-witness: the disk failed in the middle of a change\n");
      return 1;
    }
  }
}

void Server::accept_all() {
  for (;;) {
    Fd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.valid()) return;
    if (connections_.size() >= connections_max) {
      refused_++;
      continue;
    }
    // Whoever fills the room for strangers does not keep the servers out.
    if (strangers_ >= strangers_max) drop_oldest_stranger();
    admit(std::move(socket));
  }
}

void Server::admit(Fd socket) {
  const int fd = socket.get();
  set_up(fd);
  if (!watch(epoll_, fd, EPOLLIN, EPOLL_CTL_ADD)) return;
  const int64_t deadline_ns = boot_ns() + handshake_ms * ns_per_ms;
  connections_[fd] = std::make_unique<Connection>(std::move(socket), chooser_, deadline_ns);
  strangers_++;
}

void Server::serve(int fd) {
  const auto found = connections_.find(fd);
  if (found == connections_.end()) return;
  Connection& connection = *found->second;
  const bool was_known = connection.is_known();
  const char* why = nullptr;
  const Connection::Next next = connection.go_on(clusters_, why);
  if (!was_known && connection.is_known()) strangers_--;
  if (next == Connection::Next::close) return drop(fd, why);
  const uint32_t events = next == Connection::Next::read ? EPOLLIN : EPOLLOUT;
  if (!watch(epoll_, fd, events, EPOLL_CTL_MOD)) drop(fd, "epoll");
}

void Server::drop(int fd, const char* why) {
  const auto found = connections_.find(fd);
  if (found == connections_.end()) return;
  if (!found->second->is_known()) strangers_--;
  connections_.erase(found);
  if (why == nullptr) return;
  refused_++;
  // Whoever knocks cannot fill the log.
  const int64_t now = boot_ns();
  if (said_ns_ != 0 && now - said_ns_ < 10 * ns_per_s) return;
  said_ns_ = now;
  fprintf(stderr, "holdfast-witness: a connection was refused: %s (%llu so far)\n", why,
          static_cast<unsigned long long>(refused_));
}

void Server::drop_oldest_stranger() {
  int oldest = -1;
  int64_t first = INT64_MAX;
  for (const auto& [fd, connection] : connections_) {
    if (connection->is_known() || connection->deadline_ns() >= first) continue;
    first = connection->deadline_ns();
    oldest = fd;
  }
  drop(oldest, "too many without a certificate");
}

void Server::drop_late() {
  if (strangers_ == 0) return;
  const int64_t now = boot_ns();
  for (auto at = connections_.begin(); at != connections_.end();) {
    const auto& [fd, connection] = *at++;
    if (!connection->is_known() && connection->deadline_ns() <= now) drop(fd, "no handshake");
  }
}

int Server::wait_ms() const {
  if (strangers_ == 0) return -1;
  int64_t first = INT64_MAX;
  for (const auto& [fd, connection] : connections_) {
    if (!connection->is_known()) first = std::min(first, connection->deadline_ns());
  }
  const int64_t left = std::max<int64_t>(first - boot_ns(), 0);
  return static_cast<int>(std::min<int64_t>(left / ns_per_ms + 1, handshake_ms));
}

}  // namespace holdfast::witness
