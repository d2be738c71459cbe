#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <sys/epoll.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "lab/load.h"

namespace holdfast::lab {

void UdpLoad::begin(Client& client, uint64_t now) {
  if (!client.fd.valid() &&
      !(setup_.icmp ? open_echo(client, now) : open_socket(client, SOCK_DGRAM, now))) {
    return;
  }
  client.sequence++;
  client.answered_bits &= ~(uint64_t{1} << (client.sequence % 64));
  char text[64] = "";
  size_t head = head_size();
  // The kernel fills in the identifier and the checksum (an "unprivileged ping socket").
  if (setup_.icmp) {
    bool v4 = setup_.server.family() == AF_INET;
    text[0] = static_cast<char>(v4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST);
  }
  int length = std::snprintf(text + head, sizeof text - head, "hf %u %u%s\n", index_of(client),
                             client.sequence, setup_.icmp ? " echo" : "");
  if (send(client.fd.get(), text, head + static_cast<size_t>(length), MSG_NOSIGNAL) < 0) {
    failed(client, errno == ECONNREFUSED ? Failure::refused : Failure::unreachable, now);
  }
}

bool UdpLoad::open_echo(Client& client, uint64_t now) {
  bool v4 = setup_.server.family() == AF_INET;
  return open_socket(client, SOCK_DGRAM, now, v4 ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6});
}

// The socket stays: a second answer to the datagram that was given up must still be seen.
void UdpLoad::give_up(Client&) {}

void UdpLoad::ready(Client& client, uint32_t, uint64_t now) {
  char text[512];
  while (client.fd.valid()) {
    ssize_t got = recv(client.fd.get(), text, sizeof text - 1, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) {
      // An ICMP error: somebody said that nothing listens there.
      return failed(client, errno == ECONNREFUSED ? Failure::refused : Failure::unreachable, now);
    }
    text[got] = 0;
    if (static_cast<size_t>(got) > head_size()) take(client, text + head_size(), now);
  }
}

void UdpLoad::take(Client& client, const char* text, uint64_t now) {
  unsigned index = 0;
  unsigned sequence = 0;
  char server[65] = "";
  if (std::sscanf(text, "hf %u %u %64s", &index, &sequence, server) != 3) return;
  if (index != index_of(client) || client.sequence - sequence >= 64) return;
  uint64_t bit = uint64_t{1} << (sequence % 64);
  if ((client.answered_bits & bit) != 0) {
    tally_.doubles++;
    return;
  }
  client.answered_bits |= bit;
  if (client.phase == Client::Phase::idle) {
    tally_.late++;
    return;
  }
  answered(client, server, now);
}

}  // namespace holdfast::lab
