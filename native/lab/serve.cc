// A small server for tests: answers HTTP GET and UDP datagrams with its own name.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <unordered_map>

#include "lab/commands.h"
#include "lab/util.h"

namespace holdfast::lab {
namespace {

constexpr size_t connections_max = 8192;
constexpr size_t request_max = 16384;
// After SIGTERM: how long no connection must have been open before the end. A handshake that is
// under way has none yet.
constexpr uint64_t quiet_us = 100'000;

class Server {
 public:
  Server(std::string name, const std::vector<uint16_t>& tcp, const std::vector<uint16_t>& udp)
      : name_(std::move(name)), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    // IPv6 sockets that take IPv4 as well: one of each kind and port is enough.
    for (uint16_t port : tcp) listen_tcp(port);
    for (uint16_t port : udp) listen_udp(port);
    listen_term();
  }
  // Until SIGTERM, and then until the last connection has ended.
  void run();

 private:
  void listen_term();
  void listen_tcp(uint16_t port);
  void listen_udp(uint16_t port);
  void bind_any(int fd, uint16_t port);
  void add(int fd);
  void accept_all(int listener);
  void answer_http(int fd);
  void answer_udp(int fd);

  std::string name_;
  Fd epoll_;
  Fd term_;
  std::unordered_map<int, Fd> listeners_;
  std::unordered_map<int, Fd> datagrams_;
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

void Server::listen_term() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  term_ = Fd(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  add(term_.get());
}

void Server::listen_tcp(uint16_t port) {
  Fd fd(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  bind_any(fd.get(), port);
  require(listen(fd.get(), 4096) == 0, "listen");
  add(fd.get());
  listeners_[fd.get()] = std::move(fd);
}

void Server::listen_udp(uint16_t port) {
  Fd fd(socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  int on = 1;
  setsockopt(fd.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
  bind_any(fd.get(), port);
  add(fd.get());
  datagrams_[fd.get()] = std::move(fd);
}

void Server::accept_all(int listener) {
  while (true) {
    int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
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
void Server::answer_udp(int fd) {
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
    ssize_t got = recvmsg(fd, &message, 0);
    if (got < 0) return;
    auto length = static_cast<size_t>(got);
    while (length > 0 && bytes[length - 1] == '\n') length--;
    std::string out = std::string(bytes, length) + " " + name_ + "\n";
    if (cmsghdr* info = CMSG_FIRSTHDR(&message); info != nullptr) {
      // Source address, but let the route choose the device (they differ when the VIP is on lo).
      reinterpret_cast<in6_pktinfo*>(CMSG_DATA(info))->ipi6_ifindex = 0;
    }
    part = {out.data(), out.size()};
    sendmsg(fd, &message, MSG_NOSIGNAL);
  }
}

void Server::run() {
  uint64_t busy_us = 0;
  bool ending = false;
  while (!ending || now_us() - busy_us < quiet_us) {
    epoll_event events[256];
    int got = epoll_wait(epoll_.get(), events, 256, ending ? 20 : -1);
    for (int i = 0; i < got; i++) {
      int fd = events[i].data.fd;
      if (fd == term_.get()) {
        signalfd_siginfo info;
        ending = read(fd, &info, sizeof info) > 0 || ending;
        busy_us = now_us();
      } else if (listeners_.count(fd) != 0) {
        accept_all(fd);
      } else if (datagrams_.count(fd) != 0) {
        answer_udp(fd);
      } else {
        answer_http(fd);
      }
    }
    if (!connections_.empty()) busy_us = now_us();
  }
}

// Port numbers with commas between them; "0": none.
std::vector<uint16_t> ports_of(const Options& options, const std::string& key) {
  std::vector<uint16_t> ports;
  const std::string& text = options.at(key);
  for (size_t at = 0; at < text.size(); at = std::min(text.find(',', at), text.size() - 1) + 1) {
    Options one = {{key, text.substr(at, text.find(',', at) - at)}};
    uint64_t port = number(one, key);
    if (port > 65535) die("no port: " + one[key]);
    if (port != 0) ports.push_back(static_cast<uint16_t>(port));
  }
  return ports;
}

}  // namespace

// lab_tool serve name=N tcp=PORT,… udp=PORT,…   (0: none)
// Prints "ready" once it listens. SIGTERM: ends when its last connection has ended.
int run_serve(const Args& args) {
  Options options = parse_options(args, {{"name", "server"}, {"tcp", "80"}, {"udp", "0"}});
  Server server(options["name"], ports_of(options, "tcp"), ports_of(options, "udp"));
  write_line("ready");
  server.run();
  return 0;
}

}  // namespace holdfast::lab
