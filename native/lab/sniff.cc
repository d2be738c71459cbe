// Watches the client side of the cable and counts who answered: two servers that answer the same
// SYN are seen here even when the client's stack hides the second answer.

#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <unordered_map>

#include "lab/commands.h"
#include "lab/util.h"

namespace holdfast::lab {
namespace {

// Flows remembered between two marks. 2,000 new connections per second fill it in two minutes;
// what does not fit is counted as `forgotten`, and a test that needs exactness asserts 0.
constexpr size_t flows_max = 262144;
constexpr size_t examples_max = 8;

using Mac = uint64_t;

Mac mac_of(const uint8_t* bytes) {
  Mac mac = 0;
  for (int i = 0; i < 6; i++) mac = mac << 8 | bytes[i];
  return mac;
}

std::string mac_text(Mac mac) {
  char text[18];
  std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x",
                static_cast<unsigned>(mac >> 40 & 255), static_cast<unsigned>(mac >> 32 & 255),
                static_cast<unsigned>(mac >> 24 & 255), static_cast<unsigned>(mac >> 16 & 255),
                static_cast<unsigned>(mac >> 8 & 255), static_cast<unsigned>(mac & 255));
  return text;
}

// The address family, both ends and, for TCP, the acknowledged sequence: one SYN, one answer.
std::string flow_key(const uint8_t* addresses, size_t length, const uint8_t* ports, uint32_t ack) {
  std::string key(reinterpret_cast<const char*>(addresses), length);
  key.append(reinterpret_cast<const char*>(ports), 4);
  key.append(reinterpret_cast<const char*>(&ack), sizeof ack);
  return key;
}

class Sniffer {
 public:
  explicit Sniffer(Fd fd) : fd_(std::move(fd)) {}
  [[nodiscard]] bool obey();
  void take_batch();
  int fd() const { return fd_.get(); }

 private:
  void take(const uint8_t* frame, size_t length);
  void note_answer(Mac from) {
    if (to_us_) last_us_by_mac_[from] = at_us_;
  }
  void take_tcp(Mac from, const uint8_t* addresses, size_t size, const uint8_t* tcp);
  void note_arp(Mac from, const uint8_t* arp);
  std::string stats();
  void clear();

  Fd fd_;
  CommandReader commands_;
  std::unordered_map<std::string, Mac> flows_;
  std::unordered_map<Mac, uint64_t> syn_acks_by_mac_;
  std::unordered_map<Mac, uint64_t> udp_by_mac_;
  std::unordered_map<Mac, uint64_t> arp_by_mac_;
  // When the newest SYN-ACK or datagram for this end came from that server.
  std::unordered_map<Mac, uint64_t> last_us_by_mac_;
  // Of the frame at hand: its arrival by the kernel's clock, and whether its destination is this
  // end.
  uint64_t at_us_ = 0;
  bool to_us_ = false;
  std::vector<std::string> examples_;
  uint64_t syn_acks_ = 0;
  uint64_t repeated_ = 0;
  uint64_t doubles_ = 0;
  uint64_t resets_ = 0;
  uint64_t udp_ = 0;
  uint64_t forgotten_ = 0;
  uint64_t lost_ = 0;
};

void Sniffer::clear() {
  flows_.clear();
  syn_acks_by_mac_.clear();
  udp_by_mac_.clear();
  arp_by_mac_.clear();
  last_us_by_mac_.clear();
  examples_.clear();
  syn_acks_ = repeated_ = doubles_ = resets_ = udp_ = forgotten_ = lost_ = 0;
}

void Sniffer::take_tcp(Mac from, const uint8_t* addresses, size_t size, const uint8_t* tcp) {
  uint8_t flags = tcp[13];
  if ((flags & TH_RST) != 0) resets_++;
  if ((flags & (TH_SYN | TH_ACK | TH_RST)) != (TH_SYN | TH_ACK)) return;
  syn_acks_++;
  syn_acks_by_mac_[from]++;
  note_answer(from);
  uint32_t ack = 0;
  std::memcpy(&ack, tcp + 8, sizeof ack);
  if (flows_.size() >= flows_max) {
    forgotten_++;
    return;
  }
  auto [found, fresh] = flows_.try_emplace(flow_key(addresses, size, tcp, ack), from);
  if (fresh) return;
  if (found->second == from) {
    repeated_++;
    return;
  }
  doubles_++;
  if (examples_.size() >= examples_max) return;
  uint16_t port = 0;
  std::memcpy(&port, tcp + 2, sizeof port);
  examples_.push_back("client port " + std::to_string(ntohs(port)) + " answered by " +
                      mac_text(found->second) + " and " + mac_text(from));
}

void Sniffer::note_arp(Mac from, const uint8_t* arp) {
  // Operation 2: a reply (RFC 826).
  if (arp[6] == 0 && arp[7] == 2) arp_by_mac_[from]++;
}

void Sniffer::take(const uint8_t* frame, size_t length) {
  if (length < 14 + 28) return;
  Mac from = mac_of(frame + 6);
  auto type = static_cast<uint16_t>(frame[12] << 8 | frame[13]);
  const uint8_t* ip = frame + 14;
  if (type == ETHERTYPE_ARP) return note_arp(from, ip);
  size_t head = 0;
  size_t addresses = 0;
  size_t size = 0;
  uint8_t proto = 0;
  if (type == ETHERTYPE_IP) {
    if ((ip[6] & 0x1f) != 0 || ip[7] != 0) return;
    head = static_cast<size_t>(ip[0] & 15) * 4;
    addresses = 12;
    size = 8;
    proto = ip[9];
  } else if (type == ETHERTYPE_IPV6 && length >= 14 + 40) {
    head = 40;
    addresses = 8;
    size = 32;
    proto = ip[6];
  }
  if (proto == IPPROTO_TCP && length >= 14 + head + 20) {
    take_tcp(from, ip + addresses, size, ip + head);
  } else if (proto == IPPROTO_UDP) {
    udp_++;
    udp_by_mac_[from]++;
    note_answer(from);
  }
}

uint64_t micros(const timespec& time) {
  return static_cast<uint64_t>(time.tv_sec) * 1000000 + static_cast<uint64_t>(time.tv_nsec) / 1000;
}

// Arrival of a frame, CLOCK_BOOTTIME: the kernel stamps frames by its wall clock.
uint64_t arrival_us(msghdr& message) {
  uint64_t now = now_us();
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_TIMESTAMPNS) continue;
    timespec stamp{};
    timespec wall{};
    std::memcpy(&stamp, CMSG_DATA(part), sizeof stamp);
    clock_gettime(CLOCK_REALTIME, &wall);
    return micros(wall) > micros(stamp) ? now - (micros(wall) - micros(stamp)) : now;
  }
  return now;
}

void Sniffer::take_batch() {
  uint8_t frame[256];
  alignas(cmsghdr) char control[128];
  for (int i = 0; i < 512; i++) {
    sockaddr_ll from{};
    iovec data{frame, sizeof frame};
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t got = recvmsg(fd_.get(), &message, 0);
    if (got <= 0) return;
    at_us_ = arrival_us(message);
    to_us_ = from.sll_pkttype == PACKET_HOST;
    take(frame, static_cast<size_t>(got));
  }
}

std::string counts(const std::unordered_map<Mac, uint64_t>& map) {
  std::string out = "{";
  for (const auto& [mac, count] : map) {
    if (out.size() > 1) out += ",";
    out += quote(mac_text(mac)) + ":" + std::to_string(count);
  }
  return out + "}";
}

std::string Sniffer::stats() {
  tpacket_stats kernel{};
  socklen_t size = sizeof kernel;
  // Reading them clears them in the kernel.
  if (getsockopt(fd_.get(), SOL_PACKET, PACKET_STATISTICS, &kernel, &size) == 0) {
    lost_ += kernel.tp_drops;
  }
  std::string examples;
  for (const std::string& example : examples_) {
    examples += (examples.empty() ? "" : ",") + quote(example);
  }
  return "\"at_us\":" + std::to_string(now_us()) +
         ",\"last_us_by_mac\":" + counts(last_us_by_mac_) +
         ",\"syn_acks\":" + std::to_string(syn_acks_) +
         ",\"repeated\":" + std::to_string(repeated_) + ",\"doubles\":" + std::to_string(doubles_) +
         ",\"resets\":" + std::to_string(resets_) + ",\"udp\":" + std::to_string(udp_) +
         ",\"forgotten\":" + std::to_string(forgotten_) + ",\"lost\":" + std::to_string(lost_) +
         ",\"syn_acks_by_mac\":" + counts(syn_acks_by_mac_) +
         ",\"udp_by_mac\":" + counts(udp_by_mac_) + ",\"arp_by_mac\":" + counts(arp_by_mac_) +
         ",\"examples\":[" + examples + "]}";
}

bool Sniffer::obey() {
  std::vector<Command> list;
  bool open = commands_.read(list);
  for (const Command& command : list) {
    write_line("{\"re\":" + quote(command.id) + "," + stats());
    if (command.verb == "mark") clear();
    if (command.verb == "stop") return false;
  }
  return open;
}

// Accepts, in the kernel: ARP, UDP, and TCP with SYN or RST (IPv4 first fragments, plain IPv6).
void attach_filter(int fd) {
  sock_filter code[] = {
      /* 0 */ {BPF_LD | BPF_H | BPF_ABS, 0, 0, 12},
      /* 1 */ {BPF_JMP | BPF_JEQ | BPF_K, 13, 0, ETHERTYPE_ARP},
      /* 2 */ {BPF_JMP | BPF_JEQ | BPF_K, 7, 0, ETHERTYPE_IPV6},
      /* 3 */ {BPF_JMP | BPF_JEQ | BPF_K, 0, 12, ETHERTYPE_IP},
      /* 4 */ {BPF_LD | BPF_B | BPF_ABS, 0, 0, 23},
      /* 5 */ {BPF_JMP | BPF_JEQ | BPF_K, 9, 0, IPPROTO_UDP},
      /* 6 */ {BPF_JMP | BPF_JEQ | BPF_K, 0, 9, IPPROTO_TCP},
      /* 7 */ {BPF_LDX | BPF_B | BPF_MSH, 0, 0, 14},
      /* 8 */ {BPF_LD | BPF_B | BPF_IND, 0, 0, 14 + 13},
      /* 9 */ {BPF_JMP | BPF_JA, 0, 0, 4},
      /* 10, IPv6 */ {BPF_LD | BPF_B | BPF_ABS, 0, 0, 20},
      /* 11 */ {BPF_JMP | BPF_JEQ | BPF_K, 3, 0, IPPROTO_UDP},
      /* 12 */ {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, IPPROTO_TCP},
      /* 13 */ {BPF_LD | BPF_B | BPF_ABS, 0, 0, 14 + 40 + 13},
      /* 14, flags */ {BPF_JMP | BPF_JSET | BPF_K, 0, 1, TH_SYN | TH_RST},
      /* 15 */ {BPF_RET | BPF_K, 0, 0, 256},
      /* 16 */ {BPF_RET | BPF_K, 0, 0, 0},
  };
  sock_fprog program{sizeof code / sizeof code[0], code};
  require(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0, "filter");
}

Fd open_capture(const std::string& device) {
  Fd fd(socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  require(fd.valid(), "packet socket");
  int on = 1;
  int bytes = 32 << 20;
  attach_filter(fd.get());
  setsockopt(fd.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
  setsockopt(fd.get(), SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(if_nametoindex(device.c_str()));
  require(address.sll_ifindex != 0, "device " + device);
  require(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "bind");
  return fd;
}

}  // namespace

// lab_tool sniff DEVICE
// Answers commands: stats, mark (figures, then start anew), stop.
int run_sniff(const Args& args) {
  if (args.size() != 1) die("usage: sniff DEVICE");
  Sniffer sniffer(open_capture(args[0]));
  while (true) {
    pollfd wait[2] = {{sniffer.fd(), POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    if (poll(wait, 2, -1) < 0 && errno != EINTR) die("poll", errno);
    sniffer.take_batch();
    if (wait[1].revents != 0 && !sniffer.obey()) return 0;
  }
}

}  // namespace holdfast::lab
