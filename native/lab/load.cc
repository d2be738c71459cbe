#include "lab/load.h"

#include <sys/epoll.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "lab/commands.h"

namespace holdfast::lab {
namespace {

// More distinct names than this are counted as the last one; a cluster has at most 64 nodes.
constexpr size_t servers_max = 65;
constexpr int events_max = 256;

Failure failure_of(int error) {
  if (error == ECONNREFUSED) return Failure::refused;
  if (error == EHOSTUNREACH || error == ENETUNREACH) return Failure::unreachable;
  return Failure::reset;
}

void field(std::string& out, const char* name, uint64_t value) {
  out += ",\"";
  out += name;
  out += "\":" + std::to_string(value);
}

}  // namespace

void Histogram::add(uint64_t value) {
  uint64_t v = std::max<uint64_t>(value, 16);
  auto power = static_cast<uint64_t>(std::bit_width(v) - 1);
  uint64_t step = (v >> (power - 4)) & 15;
  bins_[std::min<uint64_t>((power - 4) * 16 + step, bins_.size() - 1)]++;
  total_++;
}

uint64_t Histogram::percentile(double part) const {
  auto wanted = static_cast<uint64_t>(static_cast<double>(total_) * part);
  uint64_t seen = 0;
  for (size_t bin = 0; bin < bins_.size(); bin++) {
    seen += bins_[bin];
    if (seen > wanted) return (16 + bin % 16) << (bin / 16);
  }
  return 0;
}

void Histogram::clear() {
  bins_.fill(0);
  total_ = 0;
}

Load::Load(const Setup& setup) : setup_(setup), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  clients_.resize(setup.count);
  uint64_t now = now_us();
  marked_us_ = now;
  next_stats_us_ = now + setup.stats_us;
  for (uint32_t i = 0; i < setup.count; i++) {
    clients_[i].source = add_offset(setup.first, i);
    // Spread over one interval, so that the load is even.
    clients_[i].due_us = now + setup.interval_us * i / setup.count;
  }
}

uint32_t Load::index_of(const Client& client) const {
  return static_cast<uint32_t>(&client - clients_.data());
}

bool Load::open_socket(Client& client, int type, uint64_t now, int protocol) {
  close_socket(client);
  int family = setup_.server.family();
  client.fd = Fd(socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
  int on = 1;
  // Lets the kernel choose the port at connect(), by the whole four-tuple.
  setsockopt(client.fd.get(), SOL_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  bool ok =
      client.fd.valid() && bind(client.fd.get(), client.source.get(), client.source.length) == 0;
  if (!ok) {
    tally_.local_errors++;
    close_socket(client);
    client.phase = Client::Phase::backoff;
    client.due_us = now + std::max<uint64_t>(setup_.backoff_us, 10'000);
    return false;
  }
  if (connect(client.fd.get(), setup_.server.get(), setup_.server.length) != 0 &&
      errno != EINPROGRESS) {
    failed(client, failure_of(errno), now);
    return false;
  }
  epoll_event event{};
  event.events = EPOLLIN;
  if (type == SOCK_STREAM) event.events |= EPOLLOUT;
  event.data.u64 = uint64_t{client.generation} << 32 | index_of(client);
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, client.fd.get(), &event);
  return true;
}

void Load::close_socket(Client& client) {
  client.fd.reset();
  client.generation++;
  client.sent = false;
  client.in.clear();
}

void Load::want(Client& client, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = uint64_t{client.generation} << 32 | index_of(client);
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, client.fd.get(), &event);
}

int Load::server_index(const std::string& name) {
  auto found = std::find(servers_.begin(), servers_.end(), name);
  if (found == servers_.end()) {
    if (servers_.size() < servers_max) servers_.push_back(name);
    return static_cast<int>(servers_.size()) - 1;
  }
  return static_cast<int>(found - servers_.begin());
}

void Load::answered(Client& client, const std::string& server, uint64_t now) {
  int index = server_index(server);
  uint64_t gap = now - client.first_try_us;
  tally_.answers++;
  tally_.gaps.add(gap);
  tally_.by_server.resize(servers_.size());
  tally_.by_server[static_cast<size_t>(index)]++;
  if (gap > tally_.longest_gap_us) {
    tally_.longest_gap_us = gap;
    tally_.longest_gap_client = index_of(client);
  }
  if (client.server >= 0 && client.server != index) {
    client.moves++;
    tally_.moves++;
  }
  client.server = index;
  client.answers++;
  client.last_answer_us = now;
  client.longest_gap_us = std::max(client.longest_gap_us, gap);
  client.due_us = std::max(now, client.first_try_us + setup_.interval_us);
  client.first_try_us = 0;
  client.phase = Client::Phase::idle;
}

void Load::failed(Client& client, Failure failure, uint64_t now) {
  tally_.failures[static_cast<size_t>(failure)]++;
  close_socket(client);
  if (client.phase == Client::Phase::idle) return;
  client.phase = Client::Phase::backoff;
  client.due_us = now + setup_.backoff_us;
}

void Load::tick(uint64_t now) {
  for (Client& client : clients_) {
    if (client.phase == Client::Phase::trying) {
      if (client.deadline_us > now) continue;
      tally_.failures[static_cast<size_t>(Failure::timeout)]++;
      give_up(client);
    } else if (client.due_us > now || (paused_ && client.phase == Client::Phase::idle)) {
      continue;
    }
    if (client.first_try_us == 0) {
      client.first_try_us = now;
      tally_.requests++;
    }
    tally_.tries++;
    client.phase = Client::Phase::trying;
    // Who has waited long tries less often: as many new connections as at first would keep servers
    // busy that only need a moment to recover. Datagrams do not, and show the end of a gap exactly.
    uint64_t waited_us = setup_.connects ? now - client.first_try_us : 0;
    uint64_t patience_us = std::max(setup_.timeout_us, waited_us / 4);
    client.deadline_us = setup_.timeout_us == 0 ? UINT64_MAX : now + patience_us;
    begin(client, now);
  }
}

void Load::poll_sockets() {
  epoll_event events[events_max];
  int got = epoll_wait(epoll_.get(), events, events_max, 1);
  uint64_t now = now_us();
  for (int i = 0; i < got; i++) {
    Client& client = clients_[static_cast<uint32_t>(events[i].data.u64)];
    if (client.generation == events[i].data.u64 >> 32) ready(client, events[i].events, now);
  }
}

bool Load::obey(uint64_t now) {
  std::vector<Command> list;
  bool open = commands_.read(list);
  for (const Command& command : list) {
    std::string head = "{\"re\":" + quote(command.id);
    if (command.verb == "mark") {
      // The answer closes the old phase: its figures are those of the phase that ends here.
      write_line(head + "," + stats(now).substr(1));
      tally_ = Tally();
      mark_ = command.argument;
      marked_us_ = now;
      for (Client& client : clients_) client.longest_gap_us = 0;
    } else if (command.verb == "stats") {
      write_line(head + "," + stats(now).substr(1));
    } else if (command.verb == "clients") {
      write_line(head + ",\"clients\":" + client_list() + "}");
    } else if (command.verb == "pause" || command.verb == "resume") {
      paused_ = command.verb == "pause";
      write_line(head + "}");
    } else if (command.verb == "stop") {
      write_line(head + "," + stats(now).substr(1));
      return false;
    } else {
      write_line(head + ",\"error\":\"unknown command\"}");
    }
  }
  return open;
}

void Load::run() {
  uint64_t before = now_us();
  while (true) {
    uint64_t now = now_us();
    // epoll_wait sleeps for 1 ms at most: anything beyond it is our own lateness.
    if (now - before > 1000) {
      tally_.worst_tick_us = std::max(tally_.worst_tick_us, now - before - 1000);
    }
    before = now;
    if (!obey(now)) return;
    tick(now);
    if (setup_.stats_us != 0 && now >= next_stats_us_) {
      write_line(stats(now));
      next_stats_us_ = now + setup_.stats_us;
    }
    poll_sockets();
  }
}

std::string Load::stats(uint64_t now) const {
  std::string out = "{\"mark\":" + quote(mark_);
  uint64_t waiting = 0;
  uint64_t oldest = 0;
  std::vector<uint64_t> clients(servers_.size());
  for (const Client& client : clients_) {
    if (client.server >= 0) clients[static_cast<size_t>(client.server)]++;
    if (client.first_try_us == 0) continue;
    waiting++;
    oldest = std::max(oldest, now - client.first_try_us);
  }
  field(out, "at_us", now);
  field(out, "since_us", now - marked_us_);
  field(out, "requests", tally_.requests);
  field(out, "tries", tally_.tries);
  field(out, "answers", tally_.answers);
  field(out, "resets", tally_.failures[static_cast<size_t>(Failure::reset)]);
  field(out, "refused", tally_.failures[static_cast<size_t>(Failure::refused)]);
  field(out, "closed", tally_.failures[static_cast<size_t>(Failure::closed)]);
  field(out, "unreachable", tally_.failures[static_cast<size_t>(Failure::unreachable)]);
  field(out, "timeouts", tally_.failures[static_cast<size_t>(Failure::timeout)]);
  field(out, "doubles", tally_.doubles);
  field(out, "late", tally_.late);
  field(out, "moves", tally_.moves);
  field(out, "local_errors", tally_.local_errors);
  field(out, "longest_gap_us", tally_.longest_gap_us);
  field(out, "longest_gap_client", tally_.longest_gap_client);
  field(out, "p50_gap_us", tally_.gaps.percentile(0.5));
  field(out, "p99_gap_us", tally_.gaps.percentile(0.99));
  field(out, "worst_tick_us", tally_.worst_tick_us);
  field(out, "waiting", waiting);
  field(out, "oldest_wait_us", oldest);
  std::string answers = "{";
  std::string last = "{";
  for (size_t i = 0; i < servers_.size(); i++) {
    std::string name = (i == 0 ? "" : ",") + quote(servers_[i]) + ":";
    uint64_t count = i < tally_.by_server.size() ? tally_.by_server[i] : 0;
    answers += name + std::to_string(count);
    last += name + std::to_string(clients[i]);
  }
  return out + ",\"servers\":" + answers + "},\"clients_by_server\":" + last + "}}";
}

std::string Load::client_list() const {
  std::string out = "[";
  for (const Client& client : clients_) {
    out += out.size() > 1 ? ",{" : "{";
    out += "\"addr\":" + quote(to_text(client.source)) + ",\"server\":";
    out += client.server < 0 ? "null" : quote(servers_[static_cast<size_t>(client.server)]);
    field(out, "answers", client.answers);
    field(out, "moves", client.moves);
    field(out, "last_answer_us", client.last_answer_us);
    field(out, "longest_gap_us", client.longest_gap_us);
    field(out, "waiting_since_us", client.first_try_us);
    out += "}";
  }
  return out + "]";
}

// Lets this group use ICMP echo sockets in this network namespace.
static void allow_echo() {
  FILE* file = std::fopen("/proc/sys/net/ipv4/ping_group_range", "w");
  require(file != nullptr, "ping_group_range");
  std::fprintf(file, "%u %u\n", getegid(), getegid());
  require(std::fclose(file) == 0, "ping_group_range");
}

// lab_tool load kind=tcp|keep|udp|icmp server=ADDR port=N first=ADDR count=N …
// One JSON object per line on stdout: the figures every stats_us, and answers to commands.
int run_load(const Args& args) {
  Options options = parse_options(args, {{"kind", "tcp"},
                                         {"server", ""},
                                         {"port", "80"},
                                         {"first", ""},
                                         {"count", "1000"},
                                         {"interval_us", "500000"},
                                         {"timeout_us", "100000"},
                                         {"backoff_us", "10000"},
                                         {"stats_us", "0"}});
  Setup setup;
  setup.server = parse_address(options["server"], static_cast<uint16_t>(number(options, "port")));
  setup.first = parse_address(options["first"], 0);
  setup.count = static_cast<uint32_t>(number(options, "count"));
  setup.interval_us = number(options, "interval_us");
  setup.timeout_us = number(options, "timeout_us");
  setup.backoff_us = number(options, "backoff_us");
  setup.stats_us = number(options, "stats_us");
  setup.keep = options["kind"] == "keep";
  if (setup.count == 0 || setup.count > 65536) die("count must be 1 to 65536");
  std::unique_ptr<Load> load;
  setup.icmp = options["kind"] == "icmp";
  if (setup.icmp) allow_echo();
  if (setup.icmp || options["kind"] == "udp") {
    load = std::make_unique<UdpLoad>(setup);
  } else if (setup.keep || options["kind"] == "tcp") {
    setup.connects = true;
    load = std::make_unique<TcpLoad>(setup);
  } else {
    die("kind must be tcp, keep, udp or icmp");
  }
  load->run();
  return 0;
}

}  // namespace holdfast::lab
