#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>

#include "link/address.h"

namespace holdfast::link {

/** One Ethernet frame, ready to send; the largest that this file builds is an NA of 86 bytes. */
struct Frame {
  uint8_t bytes[96] = {};
  size_t size = 0;
};

/**
 * Gratuitous ARP (RFC 5227 "announcement", RFC 5944 4.6): sender and target protocol address are
 * `address`. The frame's own source is `device`, not `mac`, so that a switch never learns on which
 * port a farm MAC lives. `reply` picks the operation: some equipment heeds only one of the two.
 */
Frame gratuitous_arp(const Mac& device, const Mac& mac, const Address& address, bool reply);

/** ARP probe (RFC 5227 2.1.1): asks for `address` without claiming any. */
Frame arp_probe(const Mac& device, const Address& address);

/**
 * An ARP request for `target` whose sender is `from` at `device`: who gets it learns that too (RFC
 * 826, "Packet Reception"), and answers to it.
 */
Frame arp_question(const Mac& device, const Address& from, const Address& target);

/**
 * Unsolicited neighbour advertisement to all nodes (RFC 4861 7.2.6): Override set, Solicited
 * clear, with the target's link-layer address.
 */
Frame unsolicited_na(const Mac& device, const Mac& mac, const Address& address, bool router);

/** Neighbour solicitation from :: as duplicate address detection sends it (RFC 4862 5.4.2). */
Frame ns_probe(const Mac& device, const Address& address);

/** Neighbour solicitation for `target` from `from`, with the source link-layer address (RFC
 * 4861 4.3). */
Frame ns_question(const Mac& device, const Address& from, const Address& target);

/**
 * Who claims `address` in this frame: the sender of an ARP packet with it as sender address, or
 * the target link-layer address (else the source MAC) of an NA for it. Nothing for other frames,
 * malformed ones included.
 */
std::optional<Mac> claimant(const uint8_t* frame, size_t size, const Address& address);

/** The same, of a frame that answers a question of `asker`: an ARP reply, or an NA sent to it. */
std::optional<Mac> answerer(const uint8_t* frame, size_t size, const Address& address,
                            const Address& asker);

/** ICMPv6 checksum with its pseudo-header (RFC 8200 8.1), over `size` bytes that follow `ip6`. */
uint16_t icmp6_checksum(const uint8_t* ip6, const uint8_t* body, size_t size);

}  // namespace holdfast::link
