// A cable that delays and duplicates: copies frames between two devices, each through a heap
// ordered by the time at which it is due. Stands in for netem, which not every kernel has.

#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <random>

#include "lab/commands.h"
#include "lab/util.h"

namespace holdfast::lab {
namespace {

// 16 Ki frames of a full MTU are 25 MB and half a second of 400 Mbit/s; beyond that we drop, as a
// queue of a real device would.
constexpr size_t frames_max = 16384;
constexpr size_t frame_max = 9216;

struct Direction {
  uint64_t delay_us = 0;
  uint64_t jitter_us = 0;
  // Parts per million of the frames that go out twice.
  uint64_t duplicate_ppm = 0;
};

struct Frame {
  uint64_t due_us;
  uint64_t order;
  int out;
  std::vector<uint8_t> bytes;
  bool operator<(const Frame& other) const {
    // std::push_heap keeps the greatest first: the earliest due, then the first that came.
    return due_us != other.due_us ? due_us > other.due_us : order > other.order;
  }
};

Fd open_device(const std::string& device) {
  Fd fd(socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  require(fd.valid(), "packet socket");
  int on = 1;
  int bytes = 8 << 20;
  require(setsockopt(fd.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) == 0,
          "ignore outgoing");
  setsockopt(fd.get(), SOL_PACKET, PACKET_AUXDATA, &on, sizeof on);
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(if_nametoindex(device.c_str()));
  require(address.sll_ifindex != 0, "device " + device);
  packet_mreq promiscuous{};
  promiscuous.mr_ifindex = address.sll_ifindex;
  promiscuous.mr_type = PACKET_MR_PROMISC;
  require(setsockopt(fd.get(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous,
                     sizeof promiscuous) == 0,
          "promiscuous");
  require(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "bind");
  return fd;
}

class Relay {
 public:
  Relay(std::string file, Fd a, Fd b)
      : file_(std::move(file)), ends_{std::move(a), std::move(b)}, random_(std::random_device()()) {
    configure();
  }
  void configure();
  // Takes in what waits at one end (0 or 1), at most a batch.
  void take(size_t end);
  void send_due();
  // Time until the next frame is due; none: nothing waits.
  std::optional<timespec> until_due() const;
  int fd(size_t end) const { return ends_[end].get(); }

 private:
  ssize_t receive(size_t end);
  void queue(size_t end, size_t length, uint64_t now);

  std::string file_;
  Fd ends_[2];
  Direction directions_[2];
  std::vector<Frame> heap_;
  uint64_t order_ = 0;
  std::mt19937_64 random_;
  uint8_t buffer_[frame_max];
};

// The file has one line per direction (first: from end 0 to end 1): delay_us jitter_us
// duplicate_ppm.
void Relay::configure() {
  std::ifstream in(file_);
  for (Direction& direction : directions_) {
    in >> direction.delay_us >> direction.jitter_us >> direction.duplicate_ppm;
  }
  if (!in) die("cannot read " + file_);
}

// The kernel takes a VLAN tag out of the frame and hands it over beside it: put it back.
ssize_t Relay::receive(size_t end) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(tpacket_auxdata))];
  iovec part{buffer_ + 4, sizeof buffer_ - 4};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = recvmsg(ends_[end].get(), &message, MSG_TRUNC);
  if (got < 14 || got > static_cast<ssize_t>(part.iov_len)) return got < 0 ? got : 0;
  uint16_t tag[2] = {0, 0};
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA) continue;
    tpacket_auxdata aux{};
    std::memcpy(&aux, CMSG_DATA(c), sizeof aux);
    if ((aux.tp_status & TP_STATUS_VLAN_VALID) == 0) continue;
    tag[0] = htons(aux.tp_vlan_tpid == 0 ? uint16_t{ETHERTYPE_VLAN} : aux.tp_vlan_tpid);
    tag[1] = htons(aux.tp_vlan_tci);
  }
  if (tag[0] == 0) {
    std::memmove(buffer_, buffer_ + 4, static_cast<size_t>(got));
    return got;
  }
  std::memmove(buffer_, buffer_ + 4, 12);
  std::memcpy(buffer_ + 12, tag, 4);
  return got + 4;
}

void Relay::queue(size_t end, size_t length, uint64_t now) {
  const Direction& direction = directions_[end];
  uint64_t copies = random_() % 1'000'000 < direction.duplicate_ppm ? 2 : 1;
  for (uint64_t i = 0; i < copies && heap_.size() < frames_max; i++) {
    uint64_t low = direction.delay_us - std::min(direction.delay_us, direction.jitter_us);
    uint64_t spread = direction.delay_us + direction.jitter_us - low;
    uint64_t due = now + low + (spread == 0 ? 0 : random_() % (spread + 1));
    heap_.push_back({due, order_++, ends_[1 - end].get(), {buffer_, buffer_ + length}});
    std::push_heap(heap_.begin(), heap_.end());
  }
}

void Relay::take(size_t end) {
  for (int batch = 0; batch < 256; batch++) {
    ssize_t got = receive(end);
    if (got < 0) return;
    if (got > 0) queue(end, static_cast<size_t>(got), now_us());
  }
}

void Relay::send_due() {
  uint64_t now = now_us();
  while (!heap_.empty() && heap_.front().due_us <= now) {
    std::pop_heap(heap_.begin(), heap_.end());
    const Frame& frame = heap_.back();
    // A full or dead device loses the frame, as a cable would.
    send(frame.out, frame.bytes.data(), frame.bytes.size(), MSG_DONTWAIT);
    heap_.pop_back();
  }
}

std::optional<timespec> Relay::until_due() const {
  if (heap_.empty()) return {};
  const uint64_t now = now_us();
  const uint64_t due = heap_.front().due_us;
  return to_timespec(due <= now ? 0 : static_cast<int64_t>(due - now) * ns_per_us);
}

}  // namespace

// lab_tool relay FILE DEVICE DEVICE
// Prints "ready" once frames flow; SIGHUP reads the file again.
int run_relay(const Args& args) {
  if (args.size() != 3) die("usage: relay FILE DEVICE DEVICE");
  sigset_t hangup;
  sigemptyset(&hangup);
  sigaddset(&hangup, SIGHUP);
  sigprocmask(SIG_BLOCK, &hangup, nullptr);
  Fd signals(signalfd(-1, &hangup, SFD_CLOEXEC | SFD_NONBLOCK));
  Relay relay(args[0], open_device(args[1]), open_device(args[2]));
  write_line("ready");
  while (true) {
    pollfd wait[3] = {
        {relay.fd(0), POLLIN, 0}, {relay.fd(1), POLLIN, 0}, {signals.get(), POLLIN, 0}};
    const std::optional<timespec> limit = relay.until_due();
    if (ppoll(wait, 3, limit ? &*limit : nullptr, nullptr) < 0 && errno != EINTR) {
      die("ppoll", errno);
    }
    char bytes[1024];
    if (wait[2].revents != 0 && read(signals.get(), bytes, sizeof bytes) > 0) relay.configure();
    for (size_t end = 0; end < 2; end++) {
      if (wait[end].revents != 0) relay.take(end);
    }
    relay.send_due();
  }
}

}  // namespace holdfast::lab
