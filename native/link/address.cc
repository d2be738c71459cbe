#include "link/address.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstring>

namespace holdfast::link {

size_t Address::size() const {
  if (family == AF_INET) return 4;
  return family == AF_INET6 ? 16 : 0;
}

Address parse_address(const std::string& text) {
  Address address;
  if (inet_pton(AF_INET, text.c_str(), address.bytes.data()) == 1) {
    address.family = AF_INET;
  } else if (inet_pton(AF_INET6, text.c_str(), address.bytes.data()) == 1) {
    address.family = AF_INET6;
  }
  return address;
}

std::string to_text(const Address& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.family != AF_UNSPEC) {
    inet_ntop(address.family, address.bytes.data(), text, sizeof text);
  }
  return text;
}

Address address_from(uint8_t family, const void* bytes, size_t size) {
  Address address;
  address.family = family;
  if (size == 0 || address.size() != size) return {};
  std::memcpy(address.bytes.data(), bytes, size);
  return address;
}

bool parse_mac(const std::string& text, Mac& mac) {
  unsigned part[6] = {};
  int end = 0;
  const int got = std::sscanf(text.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x%n", &part[0], &part[1],
                              &part[2], &part[3], &part[4], &part[5], &end);
  if (got != 6 || static_cast<size_t>(end) != text.size()) return false;
  for (size_t i = 0; i < 6; i++) mac[i] = static_cast<uint8_t>(part[i]);
  return true;
}

std::string to_text(const Mac& mac) {
  char text[18];
  std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
                mac[4], mac[5]);
  return text;
}

}  // namespace holdfast::link
