#include <sys/epoll.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "load.hpp"

namespace lab {

void UdpLoad::begin(Client& client, uint64_t now) {
  if (!client.fd.open() && !open_socket(client, SOCK_DGRAM, now)) return;
  client.sequence++;
  client.answered_bits &= ~(uint64_t{1} << (client.sequence % 64));
  char text[64];
  int length = std::snprintf(text, sizeof text, "hf %u %u\n", index_of(client), client.sequence);
  if (send(client.fd.get(), text, static_cast<size_t>(length), MSG_NOSIGNAL) < 0) {
    failed(client, errno == ECONNREFUSED ? Failure::refused : Failure::unreachable, now);
  }
}

// The socket stays: a second answer to the datagram that was given up must still be seen.
void UdpLoad::give_up(Client&) {}

void UdpLoad::ready(Client& client, uint32_t, uint64_t now) {
  char text[512];
  while (client.fd.open()) {
    ssize_t got = recv(client.fd.get(), text, sizeof text - 1, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) {
      // An ICMP error: somebody said that nothing listens there.
      return failed(client, errno == ECONNREFUSED ? Failure::refused : Failure::unreachable, now);
    }
    text[got] = 0;
    take(client, text, now);
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

}  // namespace lab
