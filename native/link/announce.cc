#include "link/announce.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <functional>

#include "common/clock.h"
#include "common/fd.h"
#include "link/engine.h"
#include "link/frames.h"

namespace holdfast::link {
namespace {

/** RFC 5227 sends three probes in up to 7 s; a takeover cannot wait, so they share the timeout. */
constexpr int probes = 3;

/** A packet socket bound to a device; ethertype 0: for sending only. */
Result<Fd> open_packet(const std::string& device, uint16_t ethertype) {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ethertype);
  address.sll_ifindex = static_cast<int>(if_nametoindex(device.c_str()));
  if (address.sll_ifindex == 0) return Result<Fd>::failure(ENODEV, "if_nametoindex");
  // Protocol 0 until bound: nothing of other devices gets into the queue.
  Fd fd(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return Result<Fd>::failure(errno, "socket");
  const int on = 1;
  setsockopt(fd.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return Result<Fd>::failure(errno, "bind");
  }
  // Answers to an IPv6 probe go to ff02::1; a device without IPv6 addresses would not listen.
  packet_mreq all_nodes{address.sll_ifindex, PACKET_MR_MULTICAST, 6, {0x33, 0x33, 0, 0, 0, 1}};
  setsockopt(fd.get(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all_nodes, sizeof all_nodes);
  return Result<Fd>::success(std::move(fd));
}

Result<int> send_frame(int fd, const Frame& frame) {
  if (send(fd, frame.bytes, frame.size, 0) < 0) return Result<int>::failure(errno, "send");
  return Result<int>::success(0);
}

/** Is this host a router on the device? Its NAs must then say so (RFC 4861 4.4). */
bool is_router(const std::string& device) {
  const std::string path = "/proc/sys/net/ipv6/conf/" + device + "/forwarding";
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char byte = '0';
  return fd.valid() && read(fd.get(), &byte, 1) == 1 && byte != '0';
}

/** Whether a frame is what is waited for, and whose it is. */
using Matcher = std::function<std::optional<Mac>(const uint8_t* frame, size_t size)>;

/** Takes what waits; the first that matches and is somebody else's, if any. */
std::optional<Mac> take_match(int fd, const Matcher& matcher, const Mac& own) {
  uint8_t frame[1600];
  // Bounded, so that a flood cannot hold us beyond the timeout.
  for (int i = 0; i < 256; i++) {
    const ssize_t got = recv(fd, frame, sizeof frame, 0);
    if (got < 0) return {};
    const std::optional<Mac> mac = matcher(frame, static_cast<size_t>(got));
    if (mac.has_value() && *mac != own) return mac;
  }
  return {};
}

/** Sends `frame` three times within the timeout, until something matches. */
Result<std::optional<Mac>> inquire(int fd, const Frame& frame, const Matcher& matcher,
                                   const Mac& own, int timeout_ms) {
  using Answer = Result<std::optional<Mac>>;
  const int64_t start = boot_ns();
  const int64_t end = start + timeout_ms * ns_per_ms;
  for (int sent = 0;;) {
    const int64_t now = boot_ns();
    if (sent < probes && now >= start + (end - start) * sent / probes) {
      const Result<int> result = send_frame(fd, frame);
      if (!result.ok()) return Answer::failure(result.error, result.call);
      sent++;
    }
    if (now >= end) return Answer::success({});
    const int64_t next = sent < probes ? start + (end - start) * sent / probes : end;
    const int64_t wait_ms = std::max<int64_t>(0, (next - now + ns_per_ms - 1) / ns_per_ms);
    pollfd wait{fd, POLLIN, 0};
    if (poll(&wait, 1, static_cast<int>(wait_ms)) > 0) {
      const std::optional<Mac> mac = take_match(fd, matcher, own);
      if (mac.has_value()) return Answer::success(mac);
      if ((wait.revents & (POLLERR | POLLNVAL)) != 0) return Answer::failure(ENETDOWN, "poll");
    }
  }
}

}  // namespace

Result<int> announce(const std::string& device, const Address& address, const Mac& mac) {
  const Result<Mac> own = mac_of(device);
  if (!own.ok()) return Result<int>::failure(own.error, own.call);
  const Result<Fd> opened = open_packet(device, 0);
  if (!opened.ok()) return Result<int>::failure(opened.error, opened.call);
  const int fd = opened.value.get();
  if (address.family == AF_INET6) {
    return send_frame(fd, unsolicited_na(own.value, mac, address, is_router(device)));
  }
  const Result<int> request = send_frame(fd, gratuitous_arp(own.value, mac, address, false));
  if (!request.ok()) return request;
  return send_frame(fd, gratuitous_arp(own.value, mac, address, true));
}

Result<std::optional<Mac>> probe(const std::string& device, const Address& address,
                                 int timeout_ms) {
  using Answer = Result<std::optional<Mac>>;
  const Result<Mac> own = mac_of(device);
  if (!own.ok()) return Answer::failure(own.error, own.call);
  const bool ip6 = address.family == AF_INET6;
  const Result<Fd> opened = open_packet(device, ip6 ? ETHERTYPE_IPV6 : ETHERTYPE_ARP);
  if (!opened.ok()) return Answer::failure(opened.error, opened.call);
  const Frame frame = ip6 ? ns_probe(own.value, address) : arp_probe(own.value, address);
  const Matcher claims = [&](const uint8_t* bytes, size_t size) {
    return claimant(bytes, size, address);
  };
  return inquire(opened.value.get(), frame, claims, own.value, timeout_ms);
}

Result<std::optional<Mac>> ask(const std::string& device, const Address& from,
                               const Address& target, int timeout_ms) {
  using Answer = Result<std::optional<Mac>>;
  if (from.family != target.family) return Answer::failure(EAFNOSUPPORT, "ask");
  const Result<Mac> own = mac_of(device);
  if (!own.ok()) return Answer::failure(own.error, own.call);
  const bool ip6 = target.family == AF_INET6;
  const Result<Fd> opened = open_packet(device, ip6 ? ETHERTYPE_IPV6 : ETHERTYPE_ARP);
  if (!opened.ok()) return Answer::failure(opened.error, opened.call);
  const Frame frame =
      ip6 ? ns_question(own.value, from, target) : arp_question(own.value, from, target);
  const Matcher answers = [&](const uint8_t* bytes, size_t size) {
    return answerer(bytes, size, target, from);
  };
  return inquire(opened.value.get(), frame, answers, own.value, timeout_ms);
}

}  // namespace holdfast::link
