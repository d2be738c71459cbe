#include <strings.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "lab/load.h"

namespace holdfast::lab {
namespace {

constexpr size_t response_max = 65536;

// The value of a header in the head of a response, or "" (names compare without case, RFC 9110).
std::string header(const std::string& head, const char* name) {
  size_t length = std::strlen(name);
  for (size_t at = head.find("\r\n"); at != std::string::npos; at = head.find("\r\n", at + 2)) {
    const char* line = head.c_str() + at + 2;
    if (strncasecmp(line, name, length) != 0 || line[length] != ':') continue;
    const char* value = line + length + 1;
    while (*value == ' ') value++;
    return std::string(value, std::strcspn(value, "\r\n"));
  }
  return "";
}

// Who answered: the header X-Holdfast-Node, or else the first line of the body. False while the
// response is not complete.
bool server_of(const std::string& in, bool ended, std::string& server) {
  size_t head_end = in.find("\r\n\r\n");
  if (head_end == std::string::npos) return false;
  std::string head = in.substr(0, head_end);
  size_t body = head_end + 4;
  std::string length = header(head, "content-length");
  if (length.empty() ? !ended : in.size() - body < std::strtoull(length.c_str(), nullptr, 10)) {
    return false;
  }
  server = header(head, "x-holdfast-node");
  if (server.empty()) server = in.substr(body, std::strcspn(in.c_str() + body, "\r\n"));
  return true;
}

}  // namespace

void TcpLoad::begin(Client& client, uint64_t now) {
  if (client.fd.valid()) {
    send_request(client, now);
  } else {
    open_socket(client, SOCK_STREAM, now);
  }
}

void TcpLoad::give_up(Client& client) {
  close_socket(client);
}

void TcpLoad::send_request(Client& client, uint64_t now) {
  static const std::string once =
      "GET / HTTP/1.1\r\nHost: holdfast.lab\r\nConnection: close\r\n\r\n";
  static const std::string kept = "GET / HTTP/1.1\r\nHost: holdfast.lab\r\n\r\n";
  const std::string& request = setup_.keep ? kept : once;
  client.in.clear();
  // An empty send buffer takes these bytes whole; a short write cannot happen.
  if (send(client.fd.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) {
    failed(client, errno == ECONNREFUSED ? Failure::refused : Failure::reset, now);
    return;
  }
  client.sent = true;
  want(client, EPOLLIN);
}

void TcpLoad::ready(Client& client, uint32_t events, uint64_t now) {
  if (!client.sent) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(client.fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == ECONNREFUSED) return failed(client, Failure::refused, now);
    if (error == EHOSTUNREACH || error == ENETUNREACH) {
      return failed(client, Failure::unreachable, now);
    }
    if (error != 0) return failed(client, Failure::reset, now);
    if (events & EPOLLOUT) send_request(client, now);
    return;
  }
  receive(client, now);
}

void TcpLoad::receive(Client& client, uint64_t now) {
  char bytes[4096];
  bool ended = false;
  while (true) {
    ssize_t got = recv(client.fd.get(), bytes, sizeof bytes, 0);
    if (got > 0) {
      client.in.append(bytes, static_cast<size_t>(got));
      if (client.in.size() > response_max) return failed(client, Failure::closed, now);
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno != EAGAIN) return failed(client, Failure::reset, now);
    ended = got == 0;
    break;
  }
  std::string server;
  bool complete = client.phase == Client::Phase::trying && server_of(client.in, ended, server);
  if (complete) {
    answered(client, server, now);
    client.in.clear();
    if (!setup_.keep) close_socket(client);
  }
  // A kept connection that the server ends between two requests counts too: nothing may end it.
  if (ended && client.fd.valid()) failed(client, Failure::closed, now);
}

}  // namespace holdfast::lab
