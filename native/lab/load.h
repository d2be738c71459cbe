// Clients that load a virtual IP and write down exactly what they saw. In C++ because the numbers
// are verdicts: a JavaScript timer that is 200 ms late would be reported as a gap of the cluster.
//
// A *request* is what one client wants at one time; it may take several *tries*. A try that gets
// no answer within timeout_us is given up and tried again at once on a new connection (TCP) or as
// a new datagram (UDP). The gap of a request is the time from its first try to its answer.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "lab/util.h"

namespace holdfast::lab {

struct Setup {
  Address server;
  Address first;
  uint32_t count = 0;
  uint64_t interval_us = 0;
  // 0: a try never ends by itself.
  uint64_t timeout_us = 0;
  uint64_t backoff_us = 0;
  uint64_t stats_us = 0;
  bool keep = false;
  bool icmp = false;
  // Each try is a connection (tcp) or needs one (keep).
  bool connects = false;
};

struct Client {
  enum class Phase : uint8_t { idle, trying, backoff };
  Address source;
  Fd fd;
  Phase phase = Phase::idle;
  // Counts sockets, so that an event of a closed one is not taken for the new one's.
  uint32_t generation = 0;
  bool sent = false;
  uint64_t due_us = 0;
  uint64_t first_try_us = 0;
  uint64_t deadline_us = 0;
  int server = -1;
  uint64_t answers = 0;
  uint64_t moves = 0;
  uint64_t last_answer_us = 0;
  uint64_t longest_gap_us = 0;
  std::string in;
  // UDP: number of the newest datagram, and which of the last 64 were answered (bit n % 64).
  uint32_t sequence = 0;
  uint64_t answered_bits = 0;
};

// How a try can end without an answer.
enum class Failure : uint8_t { reset, refused, closed, unreachable, timeout };

// Gaps by size, 16 steps per power of two: percentiles within 6 %.
class Histogram {
 public:
  void add(uint64_t value);
  uint64_t percentile(double part) const;
  void clear();

 private:
  std::array<uint64_t, 1024> bins_{};
  uint64_t total_ = 0;
};

// What was seen since the last mark.
struct Tally {
  uint64_t requests = 0;
  uint64_t tries = 0;
  uint64_t answers = 0;
  std::array<uint64_t, 5> failures{};
  uint64_t doubles = 0;
  uint64_t late = 0;
  uint64_t moves = 0;
  uint64_t local_errors = 0;
  uint64_t longest_gap_us = 0;
  uint32_t longest_gap_client = 0;
  // How late the generator itself was at worst; a gap is known to this precision only.
  uint64_t worst_tick_us = 0;
  std::vector<uint64_t> by_server;
  Histogram gaps;
};

class Load {
 public:
  explicit Load(const Setup& setup);
  virtual ~Load() = default;
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;
  // Runs until told to stop or until stdin ends.
  void run();

 protected:
  // Starts one try; the client has no socket or, where connections are kept, an open one.
  virtual void begin(Client& client, uint64_t now) = 0;
  virtual void ready(Client& client, uint32_t events, uint64_t now) = 0;
  // A try ran out of time.
  virtual void give_up(Client& client) = 0;

  // Opens a socket bound to the client's own address and connects it; false on a local error.
  bool open_socket(Client& client, int type, uint64_t now, int protocol = 0);
  void close_socket(Client& client);
  void want(Client& client, uint32_t events);
  void answered(Client& client, const std::string& server, uint64_t now);
  void failed(Client& client, Failure failure, uint64_t now);
  uint32_t index_of(const Client& client) const;

  Setup setup_;
  Tally tally_;

 private:
  void tick(uint64_t now);
  bool obey(uint64_t now);
  void poll_sockets();
  int server_index(const std::string& name);
  std::string stats(uint64_t now) const;
  std::string client_list() const;

  std::vector<Client> clients_;
  std::vector<std::string> servers_;
  CommandReader commands_;
  Fd epoll_;
  std::string mark_ = "start";
  uint64_t marked_us_ = 0;
  uint64_t next_stats_us_ = 0;
  bool paused_ = false;
};

// HTTP GET, one connection per request or one kept open.
class TcpLoad : public Load {
 public:
  using Load::Load;

 protected:
  void begin(Client& client, uint64_t now) override;
  void ready(Client& client, uint32_t events, uint64_t now) override;
  void give_up(Client& client) override;

 private:
  void send_request(Client& client, uint64_t now);
  void receive(Client& client, uint64_t now);
};

// One datagram "hf CLIENT SEQUENCE\n", answered by "hf CLIENT SEQUENCE SERVER\n"; or an ICMP echo
// request, which the kernel of some server sends back as it is.
class UdpLoad : public Load {
 public:
  using Load::Load;

 protected:
  void begin(Client& client, uint64_t now) override;
  void ready(Client& client, uint32_t events, uint64_t now) override;
  void give_up(Client& client) override;

 private:
  bool open_echo(Client& client, uint64_t now);
  // Bytes before the text: those of the ICMP header (RFC 792, RFC 4443).
  size_t head_size() const { return setup_.icmp ? 8 : 0; }
  void take(Client& client, const char* text, uint64_t now);
};

}  // namespace holdfast::lab
