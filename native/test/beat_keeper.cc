#include <doctest/doctest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "beat/control.h"
#include "beat/notify.h"
#include "beat/thread.h"
#include "common/clock.h"

using namespace holdfast;
using namespace holdfast::beat;

namespace {

constexpr int64_t patience_ns = 20 * ns_per_s;

template <typename T>
void append(std::vector<uint8_t>& out, const T& value) {
  const size_t at = out.size();
  out.resize(at + sizeof value);
  std::memcpy(out.data() + at, &value, sizeof value);
}

std::vector<uint8_t> frame(CommandType type, const std::vector<uint8_t>& body) {
  std::vector<uint8_t> out;
  append(out, CommandHeader{static_cast<uint32_t>(body.size()), static_cast<uint32_t>(type)});
  out.insert(out.end(), body.begin(), body.end());
  return out;
}

/** Own loopback addresses for each run, so that runs side by side do not meet. */
std::string loopback(int host) {
  const int pid = getpid();
  return "127." + std::to_string(1 + (pid >> 8) % 250) + "." + std::to_string(pid & 255) + "." +
         std::to_string(1 + host);
}

CommandLan lan_of(const std::string& local) {
  CommandLan lan{};
  std::strncpy(lan.local, local.c_str(), sizeof lan.local - 1);
  lan.port = 4800;
  return lan;
}

CommandPeer peer_of(const std::string& address, uint8_t lan, uint8_t node) {
  CommandPeer peer{};
  std::strncpy(peer.address, address.c_str(), sizeof peer.address - 1);
  peer.lan = lan;
  peer.node = node;
  return peer;
}

CommandConfigure head_of(uint32_t me) {
  CommandConfigure head{};
  head.cluster = 5;
  head.me = me;
  head.lan_count = 1;
  head.peer_count = 1;
  head.heartbeat_ns = 20 * ns_per_ms;
  head.suspect_ns = 2000 * ns_per_ms;
  head.lease_ns = 100 * ns_per_ms;
  head.agent_deadline_ns = 60 * ns_per_s;
  return head;
}

std::vector<uint8_t> body_of(const CommandConfigure& head, const std::vector<CommandLan>& lans,
                             const std::vector<CommandPeer>& peers, const std::string& map = "") {
  std::vector<uint8_t> body;
  append(body, head);
  for (const CommandLan& lan : lans) append(body, lan);
  for (const CommandPeer& peer : peers) append(body, peer);
  body.insert(body.end(), map.begin(), map.end());
  return body;
}

/** A heartbeat thread with its main-thread side and the agent's end of the socket. */
struct Holder {
  Holder(uint64_t boot, uint32_t me) : shared(new Shared()) {
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sockets) == 0);
    shared->agent_alive_ns.store(static_cast<uint64_t>(boot_ns()));
    thread.reset(new HeartbeatThread(boot, *shared, sockets[0], false));
    control.reset(new Control(*thread));
    REQUIRE(thread->start() == 0);
    node = me;
  }
  ~Holder() {
    thread->stop();
    close(sockets[0]);
    close(sockets[1]);
  }
  Control::Outcome give(const std::vector<uint8_t>& bytes) {
    REQUIRE(send(sockets[1], bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
    return control->read(sockets[0]);
  }
  Control::Outcome configure() {
    return give(frame(CommandType::configure,
                      body_of(head_of(node), {lan_of(loopback(static_cast<int>(node)))},
                              {peer_of(loopback(static_cast<int>(1 - node)), 0,
                                       static_cast<uint8_t>(1 - node))})));
  }
  /** Waits for the doorbell until an event fits; false when patience ends. */
  template <typename F>
  bool wait_for(F fits) {
    const int64_t until = boot_ns() + patience_ns;
    while (boot_ns() < until) {
      shared->rung.store(0);
      Event events[16];
      for (uint32_t count; (count = shared->events.pop(events, 16)) > 0;) {
        for (uint32_t i = 0; i < count; i++) {
          if (fits(events[i])) return true;
        }
      }
      pollfd polled{sockets[1], POLLIN, 0};
      poll(&polled, 1, 100);
      char rings[64];
      while (recv(sockets[1], rings, sizeof rings, MSG_DONTWAIT) > 0) continue;
    }
    return false;
  }

  /** Waits, ringing or not, until something holds; false when patience ends. */
  template <typename F>
  bool wait_until(F holds) {
    const int64_t until = boot_ns() + patience_ns;
    while (!holds()) {
      if (boot_ns() > until) return false;
      shared->rung.store(0);
      pollfd polled{sockets[1], POLLIN, 0};
      poll(&polled, 1, 10);
      char rings[64];
      while (recv(sockets[1], rings, sizeof rings, MSG_DONTWAIT) > 0) continue;
    }
    return true;
  }

  std::unique_ptr<Shared> shared;
  int sockets[2];
  std::unique_ptr<HeartbeatThread> thread;
  std::unique_ptr<Control> control;
  uint32_t node;
};

bool is_both(const Event& event) {
  return event.kind == EventKind::peer && event.value == static_cast<uint8_t>(Reach::both);
}

}  // namespace

TEST_CASE("thread: two real threads over loopback reach each other, announce, resync, stop") {
  Holder a(11, 0);
  Holder b(22, 1);
  CHECK(a.configure() == Control::Outcome::more);
  CHECK(b.configure() == Control::Outcome::more);
  CHECK(a.wait_for(is_both));
  CHECK(b.wait_for(is_both));
  Announcement announcement;
  announcement.number = 77;
  announcement.count = 1;
  announcement.modules[0] = {9, 1, 4, 3, 0, LeaseRule::view, 0, 0};
  a.shared->announcement.write(announcement);
  CHECK(a.give(frame(CommandType::announce, {})) == Control::Outcome::more);
  CHECK(b.wait_for([](const Event& e) { return e.kind == EventKind::module && e.key == 9; }));
  CHECK(a.wait_until([&] { return a.shared->announced.load() == 77; }));
  // Configurations and commands while everything runs.
  for (int i = 0; i < 200; i++) {
    CHECK(a.configure() == Control::Outcome::more);
    CHECK(a.give(frame(CommandType::hello, {})) == Control::Outcome::more);
    a.control->sweep();
  }
  CHECK(a.wait_for(is_both));
  auto stats = std::make_unique<Stats>();
  REQUIRE(a.shared->stats.read(*stats));
  CHECK(stats->boot == 11);
  CHECK(stats->bad_mac + stats->malformed + stats->foreign + stats->send_errors == 0);
}

TEST_CASE(
    "thread: an announcement is acted by in the next turn, though the main thread stands still") {
  Holder a(11, 0);
  Holder b(22, 1);
  CHECK(a.configure() == Control::Outcome::more);
  CHECK(b.configure() == Control::Outcome::more);
  CHECK(a.wait_for(is_both));
  Announcement announcement;
  announcement.count = 1;
  for (uint64_t number = 1; number <= 5; number++) {
    announcement.number = number;
    announcement.modules[0] = {9, module_running, number, 0, 0, LeaseRule::off, 0, 0};
    a.shared->announcement.write(announcement);
    // Nothing was sent on the socket: nobody wakes it.
    CHECK(a.wait_until([&] { return a.shared->announced.load() == number; }));
    CHECK(b.wait_for(
        [&](const Event& e) { return e.kind == EventKind::module && e.view_epoch == number; }));
  }
}

TEST_CASE("thread: an address that is not ours is a fault, tried again on request only") {
  Holder a(11, 0);
  const auto body = body_of(head_of(0), {lan_of("192.0.2.1")}, {peer_of("192.0.2.2", 0, 1)});
  CHECK(a.give(frame(CommandType::configure, body)) == Control::Outcome::more);
  CHECK(a.wait_for(
      [](const Event& e) { return e.kind == EventKind::fault && e.error == EADDRNOTAVAIL; }));
  CHECK(a.control->wants_retry());
  a.control->retry();
  CHECK(a.configure() == Control::Outcome::more);
  CHECK_FALSE(a.control->wants_retry());
  CHECK(a.wait_for([](const Event& e) { return e.kind == EventKind::fault && e.error == 0; }));
}

TEST_CASE("control: an announcement that makes no sense is refused, and nothing acts by it") {
  struct Row {
    const char* name;
    uint32_t count;
    ModuleConfig module;
    bool sane;
  };
  const Row rows[] = {
      {"nothing", 0, {}, true},
      {"a farm", 1, {9, 1, 4, 3, 1, LeaseRule::view, 0, 0}, true},
      {"a mirror", 1, {9, 1, 4, 0, 1, LeaseRule::peer, 1, 300}, true},
      {"too many", max_modules + 1, {}, false},
      {"a rule of another version", 1, {9, 1, 4, 0, 1, static_cast<LeaseRule>(4), 1, 300}, false},
      {"peer 64", 1, {9, 1, 4, 0, 1, LeaseRule::peer, 64, 300}, false},
      {"a lease of nothing", 1, {9, 1, 4, 0, 1, LeaseRule::own, 0, 0}, false},
      {"a lease of an age", 1, {9, 1, 4, 0, 1, LeaseRule::peer, 1, longest_ns + 1}, false},
  };
  Holder a(11, 0);
  uint64_t number = 0;
  for (const Row& row : rows) {
    INFO(row.name);
    Announcement announcement;
    announcement.number = ++number;
    announcement.count = row.count;
    announcement.modules[0] = row.module;
    a.shared->announcement.write(announcement);
    const auto outcome = a.give(frame(CommandType::announce, {}));
    CHECK((outcome == Control::Outcome::more) == row.sane);
    if (row.sane) {
      CHECK(a.wait_until([&] { return a.shared->announced.load() == number; }));
    }
  }
  CHECK(a.shared->announced.load() == 3);
}

TEST_CASE("control: commands arrive in any pieces") {
  Holder a(11, 0);
  const auto body = body_of(head_of(0), {lan_of(loopback(0))}, {peer_of(loopback(1), 0, 1)});
  std::vector<uint8_t> all = frame(CommandType::configure, body);
  const std::vector<uint8_t> ready = frame(CommandType::ready, {});
  all.insert(all.end(), ready.begin(), ready.end());
  for (size_t i = 0; i < all.size(); i++) {
    CHECK_FALSE(a.control->take_ready());
    REQUIRE(a.give({all[i]}) == Control::Outcome::more);
  }
  CHECK(a.control->take_ready());
  CHECK_FALSE(a.control->take_ready());
}

TEST_CASE("control: what makes no sense is refused") {
  struct Row {
    const char* name;
    CommandType type;
    std::vector<uint8_t> body;
  };
  const std::vector<CommandLan> lan = {lan_of(loopback(0))};
  const std::vector<CommandPeer> peer = {peer_of(loopback(1), 0, 1)};
  const auto head = [](void (*change)(CommandConfigure&)) {
    CommandConfigure h = head_of(0);
    change(h);
    return h;
  };
  CommandLan unterminated = lan_of("");
  std::memset(unterminated.local, '1', sizeof unterminated.local);
  std::vector<uint8_t> extra = body_of(head_of(0), lan, peer);
  extra.push_back(0);
  const Row rows[] = {
      {"unknown command", static_cast<CommandType>(99), {}},
      {"hello with a body", CommandType::hello, {1}},
      {"configure: empty", CommandType::configure, {}},
      {"configure: short", CommandType::configure, std::vector<uint8_t>(87)},
      {"configure: bytes too many", CommandType::configure, extra},
      {"configure: node 64", CommandType::configure,
       body_of(head([](auto& h) { h.me = 64; }), lan, peer)},
      {"configure: 9 networks", CommandType::configure,
       body_of(head([](auto& h) { h.lan_count = 9; }), lan, peer)},
      {"configure: 2^32 - 1 peers", CommandType::configure,
       body_of(head([](auto& h) { h.peer_count = UINT32_MAX; }), lan, peer)},
      {"configure: long path", CommandType::configure,
       body_of(head([](auto& h) { h.lease_map_size = 300; }), lan, peer, std::string(300, 'x'))},
      {"configure: heartbeat of 0", CommandType::configure,
       body_of(head([](auto& h) { h.heartbeat_ns = 0; }), lan, peer)},
      {"configure: suspect not above heartbeat", CommandType::configure,
       body_of(head([](auto& h) { h.suspect_ns = h.heartbeat_ns; }), lan, peer)},
      {"configure: lease of an age", CommandType::configure,
       body_of(head([](auto& h) { h.lease_ns = uint64_t{1} << 63; }), lan, peer)},
      {"configure: a name, no address", CommandType::configure,
       body_of(head_of(0), {lan_of("localhost")}, peer)},
      {"configure: no terminating zero", CommandType::configure,
       body_of(head_of(0), {unterminated}, peer)},
      {"configure: peer on a network that is not there", CommandType::configure,
       body_of(head_of(0), lan, {peer_of(loopback(1), 1, 1)})},
      {"configure: peer is this node", CommandType::configure,
       body_of(head_of(0), lan, {peer_of(loopback(1), 0, 0)})},
      {"configure: peer of the other family", CommandType::configure,
       body_of(head_of(0), lan, {peer_of("::1", 0, 1)})},
      {"announce with a body", CommandType::announce, {1}},
  };
  for (const Row& row : rows) {
    INFO(row.name);
    Holder a(11, 0);
    CHECK(a.give(frame(row.type, row.body)) == Control::Outcome::broken);
    CHECK(a.thread->generation() == 0);
  }
  Holder a(11, 0);
  std::vector<uint8_t> huge;
  append(huge, CommandHeader{UINT32_MAX, 2});
  CHECK(a.give(huge) == Control::Outcome::broken);
}

TEST_CASE("notify: a datagram to a path and to an abstract address; nothing without one") {
  unsetenv("NOTIFY_SOCKET");
  CHECK_FALSE(notify_service_manager("READY=1"));
  for (const bool abstract : {false, true}) {
    const std::string name = "/tmp/holdfast-notify-" + std::to_string(getpid());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (abstract) address.sun_path[0] = 0;
    const Fd fd(socket(AF_UNIX, SOCK_DGRAM, 0));
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    REQUIRE(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
    setenv("NOTIFY_SOCKET", (abstract ? "@" + name.substr(1) : name).c_str(), 1);
    CHECK(notify_service_manager("READY=1"));
    char got[16] = {};
    CHECK(recv(fd.get(), got, sizeof got - 1, MSG_DONTWAIT) == 7);
    CHECK(std::string(got) == "READY=1");
    unlink(name.c_str());
  }
  setenv("NOTIFY_SOCKET", "relative", 1);
  CHECK_FALSE(notify_service_manager("READY=1"));
  unsetenv("NOTIFY_SOCKET");
}

TEST_CASE("notify: the watchdog's interval is for the process it names") {
  unsetenv("WATCHDOG_PID");
  setenv("WATCHDOG_USEC", "3000000", 1);
  CHECK(watchdog_interval_ns() == 3 * ns_per_s);
  setenv("WATCHDOG_PID", "1", 1);
  CHECK(watchdog_interval_ns() == 0);
  setenv("WATCHDOG_PID", std::to_string(getpid()).c_str(), 1);
  CHECK(watchdog_interval_ns() == 3 * ns_per_s);
  unsetenv("WATCHDOG_USEC");
  CHECK(watchdog_interval_ns() == 0);
  unsetenv("WATCHDOG_PID");
}
