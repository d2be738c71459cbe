#include <doctest/doctest.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "common/fd.h"
#include "link/address.h"
#include "link/engine.h"
#include "link/frames.h"
#include "link/monitor.h"
#include "link/netlink.h"
#include "link/notify.h"

using namespace holdfast::link;

namespace {

constexpr Mac device = {0x02, 0, 0, 0, 0, 0x01};
constexpr Mac farm = {0x03, 0, 0, 0, 0, 0x99};

std::string hex(const Frame& frame) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < frame.size; i++) {
    out += digits[frame.bytes[i] >> 4];
    out += digits[frame.bytes[i] & 15];
  }
  return out;
}

}  // namespace

TEST_CASE("addresses and MACs are read and written") {
  CHECK(to_text(parse_address("10.0.0.7")) == "10.0.0.7");
  CHECK(to_text(parse_address("fd00:0::0007")) == "fd00::7");
  CHECK(parse_address("10.0.0").family == AF_UNSPEC);
  CHECK(parse_address("").family == AF_UNSPEC);
  Mac mac{};
  CHECK(parse_mac("02:aB:00:00:00:ff", mac));
  CHECK(to_text(mac) == "02:ab:00:00:00:ff");
  CHECK_FALSE(parse_mac("02:ab:00:00:00", mac));
  CHECK_FALSE(parse_mac("02:ab:00:00:00:ff:11", mac));
  CHECK_FALSE(parse_mac("02:ab:00:00:00:gg", mac));
}

TEST_CASE("a gratuitous ARP request names the MAC but is sent from the device's own") {
  const Address address = parse_address("10.0.0.7");
  CHECK(hex(gratuitous_arp(device, farm, address, false)) ==
        "ffffffffffff"
        "020000000001"
        "0806"
        "0001080006040001"
        "030000000099"
        "0a000007"
        "000000000000"
        "0a000007");
  CHECK(hex(gratuitous_arp(device, farm, address, true)) ==
        "ffffffffffff"
        "020000000001"
        "0806"
        "0001080006040002"
        "030000000099"
        "0a000007"
        "030000000099"
        "0a000007");
}

TEST_CASE("an ARP probe claims no address") {
  CHECK(hex(arp_probe(device, parse_address("10.0.0.7"))) ==
        "ffffffffffff"
        "020000000001"
        "0806"
        "0001080006040001"
        "020000000001"
        "00000000"
        "000000000000"
        "0a000007");
}

TEST_CASE("an unsolicited NA has Override, the target's MAC and a right checksum") {
  const Frame frame = unsolicited_na(device, farm, parse_address("fd00::7"), false);
  CHECK(hex(frame) ==
        "333300000001"
        "020000000001"
        "86dd"
        "6000000000203aff"
        "fd000000000000000000000000000007"
        "ff020000000000000000000000000001"
        "880058f7"
        "20000000"
        "fd000000000000000000000000000007"
        "0201030000000099");
  // A sum over a message with its checksum in place is zero.
  CHECK(icmp6_checksum(frame.bytes + 14, frame.bytes + 54, 32) == 0);
  const Frame router = unsolicited_na(device, farm, parse_address("fd00::7"), true);
  CHECK(router.bytes[14 + 40 + 4] == 0xa0);
  CHECK(icmp6_checksum(router.bytes + 14, router.bytes + 54, 32) == 0);
}

TEST_CASE("an NS probe comes from :: and goes to the solicited-node group") {
  const Frame frame = ns_probe(device, parse_address("fd00::12:3456"));
  CHECK(hex(frame).substr(0, 24) == "3333ff123456020000000001");
  CHECK(hex(frame).substr(44, 64) ==
        "00000000000000000000000000000000ff0200000000000000000001ff123456");
  CHECK(icmp6_checksum(frame.bytes + 14, frame.bytes + 54, 24) == 0);
}

TEST_CASE("who claims an address") {
  const Address ip4 = parse_address("10.0.0.7");
  const Address ip6 = parse_address("fd00::7");
  const Frame arp = gratuitous_arp(device, farm, ip4, true);
  const Frame na = unsolicited_na(device, farm, ip6, false);
  CHECK(claimant(arp.bytes, arp.size, ip4) == farm);
  CHECK(claimant(na.bytes, na.size, ip6) == farm);
  CHECK_FALSE(claimant(arp.bytes, arp.size, parse_address("10.0.0.8")).has_value());
  CHECK_FALSE(claimant(na.bytes, na.size, parse_address("fd00::8")).has_value());
  CHECK_FALSE(claimant(arp.bytes, arp.size, ip6).has_value());
  // A probe asks and claims nothing.
  const Frame probe = arp_probe(device, ip4);
  CHECK_FALSE(claimant(probe.bytes, probe.size, ip4).has_value());
  const Frame solicitation = ns_probe(device, ip6);
  CHECK_FALSE(claimant(solicitation.bytes, solicitation.size, ip6).has_value());
}

TEST_CASE("a question names who asks, and only an answer to that counts") {
  const Address ip4 = parse_address("10.0.0.7");
  const Address gateway4 = parse_address("10.0.0.254");
  const Frame arp = arp_question(device, ip4, gateway4);
  CHECK(hex(arp) ==
        "ffffffffffff"
        "020000000001"
        "0806"
        "0001080006040001"
        "0200000000010a000007"
        "0000000000000a0000fe");
  Frame reply = arp;
  const uint8_t answer[] = {0,   2, 3, 0, 0, 0, 0, 0x99, 10, 0, 0,
                            254, 2, 0, 0, 0, 0, 1, 10,   0,  0, 7};
  std::memcpy(reply.bytes + 14 + 6, answer, sizeof answer);
  CHECK(answerer(reply.bytes, reply.size, gateway4, ip4) == farm);
  CHECK_FALSE(answerer(reply.bytes, reply.size, gateway4, parse_address("10.0.0.8")).has_value());
  CHECK_FALSE(answerer(reply.bytes, reply.size, parse_address("10.0.0.253"), ip4).has_value());
  // The other one asks for us: that is no answer, though it names the same two.
  reply.bytes[14 + 7] = 1;
  CHECK_FALSE(answerer(reply.bytes, reply.size, gateway4, ip4).has_value());

  const Address ip6 = parse_address("fd00::7");
  const Address gateway6 = parse_address("fd00::fe");
  const Frame ns = ns_question(device, ip6, gateway6);
  CHECK(ns.size == 14 + 40 + 32);
  CHECK(hex(ns).substr(0, 24) == "3333ff0000fe020000000001");
  CHECK(std::memcmp(ns.bytes + 14 + 8, ip6.bytes.data(), 16) == 0);
  CHECK(hex(ns).substr(hex(ns).size() - 16) == "0101020000000001");
  CHECK(icmp6_checksum(ns.bytes + 14, ns.bytes + 54, 32) == 0);
  // To all nodes: said, but not to us.
  const Frame na = unsolicited_na(device, farm, gateway6, true);
  CHECK_FALSE(answerer(na.bytes, na.size, gateway6, ip6).has_value());
  CHECK(answerer(na.bytes, na.size, gateway6, parse_address("ff02::1")) == farm);
}

TEST_CASE("malformed claims are no claims") {
  const Address ip6 = parse_address("fd00::7");
  const Frame na = unsolicited_na(device, farm, ip6, false);
  const Frame arp = gratuitous_arp(device, farm, parse_address("10.0.0.7"), true);
  SUBCASE("truncated at every length") {
    for (size_t size = 0; size < arp.size; size++) {
      CHECK_FALSE(claimant(arp.bytes, size, parse_address("10.0.0.7")).has_value());
    }
    for (size_t size = 0; size < na.size; size++) {
      CHECK_FALSE(claimant(na.bytes, size, ip6).has_value());
    }
  }
  SUBCASE("wrong checksum") {
    Frame bad = na;
    bad.bytes[na.size - 1] ^= 1;
    CHECK_FALSE(claimant(bad.bytes, bad.size, ip6).has_value());
  }
  SUBCASE("came through a router") {
    Frame bad = na;
    bad.bytes[14 + 7] = 64;
    CHECK_FALSE(claimant(bad.bytes, bad.size, ip6).has_value());
  }
  SUBCASE("an option of length zero") {
    Frame bad = na;
    // Kept valid for the checksum: the length's 1 moves into the first byte of the MAC's pair.
    bad.bytes[14 + 40 + 25] = 0;
    bad.bytes[14 + 40 + 27] = static_cast<uint8_t>(bad.bytes[14 + 40 + 27] + 1);
    REQUIRE(icmp6_checksum(bad.bytes + 14, bad.bytes + 54, 32) == 0);
    CHECK_FALSE(claimant(bad.bytes, bad.size, ip6).has_value());
  }
}

TEST_CASE("netlink attributes that overrun their message are not read") {
  Message<ifaddrmsg> message(RTM_NEWADDR, 0);
  message.body().ifa_family = AF_INET;
  const Address address = parse_address("10.0.0.7");
  message.attribute(IFA_LOCAL, address.bytes.data(), 4);
  CHECK(address_from(message.header()).address == address);
  message.header()->nlmsg_len -= 1;
  CHECK(address_from(message.header()).address.family == AF_UNSPEC);
}

TEST_CASE("the service manager is told, by a path or an abstract name") {
  unsetenv("NOTIFY_SOCKET");
  CHECK_FALSE(notify("READY=1"));
  setenv("NOTIFY_SOCKET", "relative", 1);
  CHECK_FALSE(notify("READY=1"));
  const holdfast::Fd manager(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  // An address of the family alone makes the kernel choose an abstract name (unix(7), autobind).
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socklen_t size = sizeof(sa_family_t);
  REQUIRE(bind(manager.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
  size = sizeof address;
  REQUIRE(getsockname(manager.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  const std::string name = "@" + std::string(address.sun_path + 1, size - sizeof(sa_family_t) - 1);
  setenv("NOTIFY_SOCKET", name.c_str(), 1);
  CHECK(notify("READY=1"));
  char text[64] = "";
  CHECK(recv(manager.get(), text, sizeof text - 1, MSG_DONTWAIT) == 7);
  CHECK(std::string(text) == "READY=1");
  unsetenv("NOTIFY_SOCKET");
}

// One network namespace of its own for the rest; without the right to make one there is nothing
// that could be tested.
TEST_CASE("addresses of a real device, seen by the monitor" *
          doctest::skip(geteuid() != 0 || unshare(CLONE_NEWNET) != 0)) {
  Monitor monitor;
  std::atomic<int> rings{0};
  REQUIRE(monitor
              .start([&rings] {
                rings++;
                rings.notify_all();
              })
              .ok());
  Engine engine;
  const Address address = parse_address("10.9.8.7");
  REQUIRE(engine.add_address("lo", address, 32).ok());
  REQUIRE(engine.add_address("lo", address, 32).ok());
  rings.wait(0);
  MonitorEvent event{};
  REQUIRE(monitor.drain(&event, 1) == 1);
  CHECK(event.kind == MonitorEvent::Kind::address);
  CHECK(event.on);
  CHECK(event.address == address);
  CHECK(std::string(event.name) == "lo");
  const auto list = engine.addresses();
  REQUIRE(list.ok());
  CHECK(std::count_if(list.value.begin(), list.value.end(),
                      [&](const DeviceAddress& each) { return each.address == address; }) == 1);
  CHECK(engine.remove_address("lo", address, 32).ok());
  CHECK(engine.remove_address("lo", address, 32).ok());
  CHECK(engine.remove_address("none0", address, 32).ok());
  CHECK(engine.add_address("none0", address, 32).error == ENODEV);
  monitor.stop();
  monitor.stop();
}
