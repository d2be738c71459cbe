#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace holdfast::link {

/** An IPv4 or IPv6 address in network byte order; family AF_UNSPEC: none. */
struct Address {
  uint8_t family = 0;
  std::array<uint8_t, 16> bytes{};

  size_t size() const;
  bool operator==(const Address&) const = default;
};

using Mac = std::array<uint8_t, 6>;

/** Family AF_UNSPEC when the text is not an address. */
Address parse_address(const std::string& text);
std::string to_text(const Address& address);
/** The address in the bytes of a netlink attribute or a packet; AF_UNSPEC when the size is wrong.
 */
Address address_from(uint8_t family, const void* bytes, size_t size);

/** False when the text is not six hex pairs with colons. */
bool parse_mac(const std::string& text, Mac& mac);
std::string to_text(const Mac& mac);

}  // namespace holdfast::link
