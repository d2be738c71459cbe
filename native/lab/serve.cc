// A small server for tests: answers HTTP GET and UDP datagrams with its own name.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>

#include <cerrno>
#include <cstring>
#include <unordered_map>

#include "commands.hpp"
#include "util.hpp"

namespace lab {
namespace {

constexpr size_t connections_max = 8192;
constexpr size_t request_max = 16384;

class Server {
 public:
  Server(std::string name, uint16_t tcp, uint16_t udp)
      : name_(std::move(name)), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    // IPv6 sockets that take IPv4 as well: one of each kind is enough.
    if (tcp != 0) listen_tcp(tcp);
    if (udp != 0) listen_udp(udp);
  }
  [[noreturn]] void run();

 private:
  void listen_tcp(uint16_t port);
  void listen_udp(uint16_t port);
  void bind_any(int fd, uint16_t port);
  void add(int fd);
  void accept_all();
  void answer_http(int fd);
  void answer_udp();

  std::string name_;
  Fd epoll_;
  Fd tcp_;
  Fd udp_;
  std::unordered_map<int, std::pair<Fd, std::string>> connections_;
};

void Server::bind_any(int fd, uint16_t port) {
  int on = 1;
  int off = 0;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  Address any = parse_address("::", port);
  require(bind(fd, any.get(), any.length) == 0, "bind port " + std::to_string(port));
}

void Server::add(int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  require(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

void Server::listen_tcp(uint16_t port) {
  tcp_ = Fd(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  bind_any(tcp_.get(), port);
  require(listen(tcp_.get(), 4096) == 0, "listen");
  add(tcp_.get());
}

void Server::listen_udp(uint16_t port) {
  udp_ = Fd(socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  int on = 1;
  setsockopt(udp_.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
  bind_any(udp_.get(), port);
  add(udp_.get());
}

void Server::accept_all() {
  while (true) {
    int fd = accept4(tcp_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    if (connections_.size() >= connections_max) {
      close(fd);
      continue;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    add(fd);
    connections_[fd].first = Fd(fd);
  }
}

void Server::answer_http(int fd) {
  auto found = connections_.find(fd);
  if (found == connections_.end()) return;
  std::string& in = found->second.second;
  char bytes[4096];
  ssize_t got = recv(fd, bytes, sizeof bytes, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0 || in.size() > request_max) {
    connections_.erase(found);
    return;
  }
  in.append(bytes, static_cast<size_t>(got));
  size_t end = 0;
  while ((end = in.find("\r\n\r\n")) != std::string::npos) {
    bool last = in.substr(0, end).find("Connection: close") != std::string::npos;
    in.erase(0, end + 4);
    std::string out = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " +
                      std::to_string(name_.size() + 1) + (last ? "\r\nConnection: close" : "") +
                      "\r\n\r\n" + name_ + "\n";
    bool sent = send(fd, out.data(), out.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(out.size());
    if (last || !sent) {
      connections_.erase(found);
      return;
    }
  }
}

// The answer leaves with the source address that the question was sent to: the virtual one.
void Server::answer_udp() {
  char bytes[2048];
  while (true) {
    sockaddr_storage from{};
    alignas(cmsghdr) char control[256];
    iovec part{bytes, 1024};
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t got = recvmsg(udp_.get(), &message, 0);
    if (got < 0) return;
    auto length = static_cast<size_t>(got);
    while (length > 0 && bytes[length - 1] == '\n') length--;
    std::string out = std::string(bytes, length) + " " + name_ + "\n";
    if (cmsghdr* info = CMSG_FIRSTHDR(&message); info != nullptr) {
      // Source address, but let the route choose the device (they differ when the VIP is on lo).
      reinterpret_cast<in6_pktinfo*>(CMSG_DATA(info))->ipi6_ifindex = 0;
    }
    part = {out.data(), out.size()};
    sendmsg(udp_.get(), &message, MSG_NOSIGNAL);
  }
}

void Server::run() {
  while (true) {
    epoll_event events[256];
    int got = epoll_wait(epoll_.get(), events, 256, -1);
    for (int i = 0; i < got; i++) {
      int fd = events[i].data.fd;
      if (fd == tcp_.get()) {
        accept_all();
      } else if (fd == udp_.get()) {
        answer_udp();
      } else {
        answer_http(fd);
      }
    }
  }
}

}  // namespace

// lab_tool serve name=N tcp=PORT udp=PORT   (0: not)
// Prints "ready" once it listens.
int run_serve(const Args& args) {
  Options options = parse_options(args, {{"name", "server"}, {"tcp", "80"}, {"udp", "0"}});
  Server server(options["name"], static_cast<uint16_t>(number(options, "tcp")),
                static_cast<uint16_t>(number(options, "udp")));
  write_line("ready");
  server.run();
}

}  // namespace lab
