#include "link/frames.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

namespace holdfast::link {
namespace {

constexpr Mac broadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
constexpr uint16_t ethertype_arp = 0x0806;
constexpr uint16_t ethertype_ip6 = 0x86dd;
constexpr size_t ethernet_size = 14;
constexpr size_t arp_size = 28;
constexpr size_t ip6_size = 40;
constexpr size_t neighbour_size = 24;  // ICMPv6 head, flags, target
constexpr size_t option_size = 8;
constexpr uint8_t type_ns = 135;
constexpr uint8_t type_na = 136;
constexpr uint8_t option_source_address = 1;
constexpr uint8_t option_target_address = 2;
constexpr uint8_t flag_router = 0x80;
constexpr uint8_t flag_override = 0x20;

class Writer {
 public:
  explicit Writer(Frame& frame) : frame_(frame) {}
  Writer& u8(uint8_t value) {
    frame_.bytes[frame_.size++] = value;
    return *this;
  }
  Writer& u16(uint16_t value) {
    return u8(static_cast<uint8_t>(value >> 8)).u8(static_cast<uint8_t>(value));
  }
  Writer& raw(const void* bytes, size_t size) {
    std::memcpy(frame_.bytes + frame_.size, bytes, size);
    frame_.size += size;
    return *this;
  }
  Writer& mac(const Mac& value) { return raw(value.data(), value.size()); }
  Writer& zeros(size_t size) {
    frame_.size += size;
    return *this;
  }

 private:
  Frame& frame_;
};

/** RFC 826. A null sender address is a probe's. */
Frame arp(const Mac& device, uint16_t operation, const Mac& sender, const uint8_t* sender_address,
          const Mac& target, const uint8_t* target_address) {
  Frame frame;
  Writer out(frame);
  out.mac(broadcast).mac(device).u16(ethertype_arp);
  out.u16(1).u16(0x0800).u8(6).u8(4).u16(operation).mac(sender);
  if (sender_address == nullptr) {
    out.zeros(4);
  } else {
    out.raw(sender_address, 4);
  }
  out.mac(target).raw(target_address, 4);
  return frame;
}

void put_checksum(Frame& frame) {
  uint8_t* body = frame.bytes + ethernet_size + ip6_size;
  const size_t size = frame.size - ethernet_size - ip6_size;
  const uint16_t sum = icmp6_checksum(frame.bytes + ethernet_size, body, size);
  body[2] = static_cast<uint8_t>(sum >> 8);
  body[3] = static_cast<uint8_t>(sum);
}

/** Ethernet and IPv6 heads of a neighbour discovery message; hop limit 255 (RFC 4861 7.1). */
Writer neighbour_head(Frame& frame, const Mac& destination, const Mac& device, size_t payload,
                      const uint8_t* from, const uint8_t* to) {
  Writer out(frame);
  out.mac(destination).mac(device).u16(ethertype_ip6);
  out.u8(0x60).zeros(3).u16(static_cast<uint16_t>(payload)).u8(IPPROTO_ICMPV6).u8(255);
  return out.raw(from, 16).raw(to, 16);
}

/** To the solicited-node multicast address (RFC 4291 2.7.1): ff02::1:ffXX:XXXX, 33:33:ff:XX:XX:XX.
 */
Frame solicitation(const Mac& device, const uint8_t* from, const Address& target, bool with_mac) {
  const uint8_t* ip = target.bytes.data();
  const uint8_t group[16] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ip[13], ip[14], ip[15]};
  const Mac group_mac = {0x33, 0x33, 0xff, ip[13], ip[14], ip[15]};
  Frame frame;
  const size_t size = neighbour_size + (with_mac ? option_size : 0);
  Writer out = neighbour_head(frame, group_mac, device, size, from, group);
  out.u8(type_ns).zeros(7).raw(ip, 16);
  if (with_mac) out.u8(option_source_address).u8(1).mac(device);
  put_checksum(frame);
  return frame;
}

std::optional<Mac> mac_at(const uint8_t* bytes) {
  Mac mac;
  std::memcpy(mac.data(), bytes, mac.size());
  return mac;
}

std::optional<Mac> arp_claimant(const uint8_t* frame, size_t size, const Address& address) {
  const uint8_t* packet = frame + ethernet_size;
  static constexpr uint8_t head[6] = {0, 1, 8, 0, 6, 4};
  if (size < ethernet_size + arp_size || address.family != AF_INET) return {};
  if (std::memcmp(packet, head, sizeof head) != 0) return {};
  if (std::memcmp(packet + 14, address.bytes.data(), 4) != 0) return {};
  return mac_at(packet + 8);
}

std::optional<Mac> na_claimant(const uint8_t* frame, size_t size, const Address& address) {
  const uint8_t* ip6 = frame + ethernet_size;
  const uint8_t* body = ip6 + ip6_size;
  if (size < ethernet_size + ip6_size + neighbour_size || address.family != AF_INET6) return {};
  const size_t length = static_cast<size_t>(ip6[4]) << 8 | ip6[5];
  const bool whole = length >= neighbour_size && ethernet_size + ip6_size + length <= size;
  // A hop limit below 255 came through a router: forged (RFC 4861 7.1.2).
  if (!whole || ip6[6] != IPPROTO_ICMPV6 || ip6[7] != 255 || body[0] != type_na) return {};
  if (icmp6_checksum(ip6, body, length) != 0) return {};
  if (std::memcmp(body + 8, address.bytes.data(), 16) != 0) return {};
  for (size_t at = neighbour_size; at + option_size <= length;) {
    const size_t option = static_cast<size_t>(body[at + 1]) * 8;
    if (option == 0) return {};
    if (body[at] == option_target_address) return mac_at(body + at + 2);
    at += option;
  }
  return mac_at(frame + 6);
}

}  // namespace

uint16_t icmp6_checksum(const uint8_t* ip6, const uint8_t* body, size_t size) {
  uint64_t sum = size + IPPROTO_ICMPV6;
  const auto add = [&sum](const uint8_t* bytes, size_t count) {
    for (size_t i = 0; i < count; i++) sum += uint64_t{bytes[i]} << (i % 2 == 0 ? 8 : 0);
  };
  add(ip6 + 8, 32);
  add(body, size);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

Frame gratuitous_arp(const Mac& device, const Mac& mac, const Address& address, bool reply) {
  const uint8_t* ip = address.bytes.data();
  // RFC 5944 4.6: the target hardware address of a reply is the announced one, of a request unused.
  return arp(device, reply ? 2 : 1, mac, ip, reply ? mac : Mac{}, ip);
}

Frame arp_probe(const Mac& device, const Address& address) {
  return arp(device, 1, device, nullptr, Mac{}, address.bytes.data());
}

Frame unsolicited_na(const Mac& device, const Mac& mac, const Address& address, bool router) {
  static constexpr uint8_t all_nodes[16] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  constexpr Mac all_nodes_mac = {0x33, 0x33, 0, 0, 0, 1};
  Frame frame;
  Writer out = neighbour_head(frame, all_nodes_mac, device, neighbour_size + option_size,
                              address.bytes.data(), all_nodes);
  out.u8(type_na).zeros(3);
  out.u8(static_cast<uint8_t>(flag_override | (router ? flag_router : 0))).zeros(3);
  out.raw(address.bytes.data(), 16).u8(option_target_address).u8(1).mac(mac);
  put_checksum(frame);
  return frame;
}

Frame ns_probe(const Mac& device, const Address& address) {
  static constexpr uint8_t unspecified[16] = {};
  return solicitation(device, unspecified, address, false);
}

Frame arp_question(const Mac& device, const Address& from, const Address& target) {
  return arp(device, 1, device, from.bytes.data(), Mac{}, target.bytes.data());
}

Frame ns_question(const Mac& device, const Address& from, const Address& target) {
  return solicitation(device, from.bytes.data(), target, true);
}

std::optional<Mac> answerer(const uint8_t* frame, size_t size, const Address& address,
                            const Address& asker) {
  const std::optional<Mac> mac = claimant(frame, size, address);
  if (!mac) return {};
  // claimant() has looked at the sizes.
  const uint8_t* packet = frame + ethernet_size;
  const bool ip6 = address.family == AF_INET6;
  const bool replies = ip6 || (packet[6] == 0 && packet[7] == 2);
  // Of an ARP packet the target address, of an IPv6 packet the destination.
  const uint8_t* to = packet + 24;
  return replies && std::memcmp(to, asker.bytes.data(), asker.size()) == 0 ? mac : std::nullopt;
}

std::optional<Mac> claimant(const uint8_t* frame, size_t size, const Address& address) {
  if (size < ethernet_size) return {};
  const auto type = static_cast<uint16_t>(frame[12] << 8 | frame[13]);
  if (type == ethertype_arp) return arp_claimant(frame, size, address);
  if (type == ethertype_ip6) return na_claimant(frame, size, address);
  return {};
}

}  // namespace holdfast::link
