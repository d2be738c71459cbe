#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <condition_variable>
#include <string>
#include <thread>

#include "replica/control.h"
#include "replica/holder.h"
#include "replica/mirror.h"
#include "replica/mounts.h"
#include "replica/role.h"
#include "replica/store.h"
#include "replica_scratch.h"

using namespace holdfast;
using namespace holdfast::replica;
using holdfast::replica::test::Scratch;

namespace {

/** Answers `echo` with its values, at once or, with `later`, when the test says so. */
class Echo final : public ControlHandler {
 public:
  Control* control = nullptr;

  void request(uint64_t client, Request request) override {
    if (request.verb == "later") {
      std::lock_guard lock(mutex_);
      waiting_ = client;
      came_.notify_all();
      return;
    }
    Line line("ok");
    for (const auto& [key, value] : request.values) line.add(key, value);
    control->answer(client, line.text());
  }

  uint64_t wait_for_later() {
    std::unique_lock lock(mutex_);
    came_.wait(lock, [this] { return waiting_ != 0; });
    return waiting_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  uint64_t waiting_ = 0;
};

struct Server {
  Scratch scratch;
  std::string path = scratch.path + "/s";
  Echo echo;
  Control control;

  Server() {
    auto listener = listen_control(path);
    REQUIRE(listener.ok());
    echo.control = &control;
    REQUIRE(control.start(std::move(listener.value), echo).ok());
  }
};

struct Client {
  Fd fd;
  std::string input;

  explicit Client(const std::string& path) : fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    REQUIRE(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  }
  void say(const std::string& text) {
    REQUIRE(send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) == ssize_t(text.size()));
  }
  /** The next line; "" at the end. */
  std::string line() {
    for (;;) {
      const size_t end = input.find('\n');
      if (end != input.npos) {
        std::string found = input.substr(0, end);
        input.erase(0, end + 1);
        return found;
      }
      char buffer[4096];
      const ssize_t size = recv(fd.get(), buffer, sizeof buffer, 0);
      if (size <= 0) return "";
      input.append(buffer, size_t(size));
    }
  }
  std::string ask(const std::string& text) {
    say(text + "\n");
    return line();
  }
};

Request request_of(const std::string& line) {
  Request request;
  CHECK(parse_request(line, request) == "");
  return request;
}

constexpr const char* whole_line =
    "open role=prim set=00112233445566778899aabbccddeeff node=1 epoch=3 state=/var/s dir=/srv/a "
    "dir=/srv/b peer=10.0.0.2:7000 listen=10.0.0.1:7000 cert=/c key=/k ca=/a async=second "
    "ack=strict ring=8388608 journal=16777216 sendtimeout=1 locktimeout=2 threads=5 skip=x%20y";

/** The whole line with one value replaced. */
std::string with(const std::string& key, const std::string& value) {
  std::string line = whole_line;
  const size_t from = line.find(" " + key + "=") + 1;
  size_t end = line.find(' ', from);
  if (end == line.npos) end = line.size();
  return line.replace(from, end - from, key + "=" + value);
}

ino_t inode_of(int fd) {
  struct stat attributes {};
  REQUIRE(fstat(fd, &attributes) == 0);
  return attributes.st_ino;
}

}  // namespace

TEST_CASE("control: every byte of a value survives the line") {
  std::string value;
  for (int c = 1; c < 256; c++) value += char(c);
  std::string text, back;
  percent_encode(value, text);
  CHECK(text.find_first_of(" \n=") == text.npos);
  CHECK(percent_decode(text, back));
  CHECK(back == value);
}

TEST_CASE("control: what is not encoded as it should be is refused") {
  std::string out;
  for (const char* wrong : {"a b", "a\nb", "a=b", "%", "%4", "%4g", "a%zz", "%00", "\x7f", "a\tb"})
    CHECK_FALSE(percent_decode(wrong, out));
  CHECK(percent_decode("%41%61%0a", out));
  CHECK(out == "Aa\n");
}

TEST_CASE("control: lines") {
  const Request request = request_of("open dir=/a dir=/b%20c state=");
  CHECK(request.verb == "open");
  CHECK(request.all("dir") == std::vector<std::string>{"/a", "/b c"});
  CHECK(request.has("state"));
  CHECK(request.get("nothing", "x") == "x");
  Request out;
  for (const char* wrong : {"", " open", "Open", "open ", "open  a=1", "open a", "open =1",
                            "open A=1", "open a=1=2", "open\ta=1"})
    CHECK(parse_request(wrong, out) != "");
}

TEST_CASE("control: answers go to the client that asked, in its order") {
  Server server;
  Client a(server.path), b(server.path);
  CHECK(a.ask("echo who=a") == "ok who=a");
  CHECK(b.ask("echo who=b%20b") == "ok who=b%20b");
  a.say("echo n=1\necho n=2\nnon sense\necho n=3\n");
  CHECK(a.line() == "ok n=1");
  CHECK(a.line() == "ok n=2");
  CHECK(a.line().starts_with("error EINVAL text="));
  CHECK(a.line() == "ok n=3");
}

TEST_CASE("control: a request that takes long holds up its client only") {
  Server server;
  Client slow(server.path), other(server.path);
  slow.say("later\necho n=2\n");
  const uint64_t id = server.echo.wait_for_later();
  CHECK(other.ask("echo n=1") == "ok n=1");
  server.control.answer(id, "ok late=1");
  CHECK(slow.line() == "ok late=1");
  CHECK(slow.line() == "ok n=2");
}

TEST_CASE("control: a client that goes before its answer harms nobody") {
  Server server;
  {
    Client gone(server.path);
    gone.say("later\n");
    server.control.answer(server.echo.wait_for_later() + 1000, "ok");
  }
  server.control.answer(server.echo.wait_for_later(), "ok");
  Client next(server.path);
  CHECK(next.ask("echo n=1") == "ok n=1");
}

TEST_CASE("control: events go to those who watch") {
  Server server;
  Client watcher(server.path), other(server.path);
  CHECK(watcher.ask("watch") == "ok");
  Events& events = server.control;
  events.event("peer", {{"state", "lost"}, {"reason", "a b"}, {"number", -3}});
  CHECK(watcher.line() == "event peer state=lost reason=a%20b number=-3");
  CHECK(other.ask("echo n=1") == "ok n=1");
}

TEST_CASE("control: what nobody heard waits for the first that watches, the newest of it") {
  Server server;
  Client other(server.path);
  Events& events = server.control;
  for (size_t i = 0; i < max_unheard + 2; i++) {
    events.event("warning", {{"n", i}});
    if (i % 100 == 0) CHECK(other.ask("echo n=1") == "ok n=1");
  }
  CHECK(other.ask("echo n=1") == "ok n=1");
  CHECK(server.control.events_lost() == 2);
  Client watcher(server.path), second(server.path);
  CHECK(watcher.ask("watch") == "ok");
  CHECK(watcher.line() == "event warning n=2");
  CHECK(second.ask("watch") == "ok");
  CHECK(second.ask("echo n=3") == "ok n=3");
}

TEST_CASE("control: a watcher that does not read is dropped, others go on") {
  Server server;
  Client watcher(server.path), other(server.path);
  CHECK(watcher.ask("watch") == "ok");
  const std::string text(4000, 'x');
  Events& events = server.control;
  while (server.control.clients_dropped() == 0) {
    events.event("warning", {{"text", text}});
    CHECK(other.ask("echo n=1") == "ok n=1");
  }
  CHECK(server.control.clients_dropped() == 1);
  while (watcher.line() != "") {
  }
}

TEST_CASE("control: a line without an end is refused and the client dropped") {
  Server server;
  Client client(server.path);
  client.say("echo a=" + std::string(max_line + 1, 'x'));
  CHECK(client.line().starts_with("error E2BIG"));
  CHECK(client.line() == "");
}

TEST_CASE("control: more clients than there may be are turned away") {
  Server server;
  std::vector<std::unique_ptr<Client>> clients;
  for (size_t i = 0; i < max_clients; i++) {
    clients.push_back(std::make_unique<Client>(server.path));
    CHECK(clients.back()->ask("echo n=1") == "ok n=1");
  }
  Client late(server.path);
  CHECK(late.line() == "");
  clients.pop_back();
  for (;;) {
    Client next(server.path);
    if (send(next.fd.get(), "echo n=2\n", 9, MSG_NOSIGNAL) == 9 && next.line() == "ok n=2") break;
  }
}

TEST_CASE("control: events before anybody listens are bounded and counted") {
  Control control;
  Events& events = control;
  for (size_t i = 0; i < max_events + 7; i++) events.event("warning", {{"n", i}});
  CHECK(control.events_lost() == 7);
}

TEST_CASE("open: the whole line is read") {
  OpenLine line;
  CHECK_FALSE(parse_open(request_of(whole_line), line).failed());
  CHECK(line.role == RoleKind::prim);
  CHECK(line.set[0] == 0x00);
  CHECK(line.set[15] == 0xff);
  CHECK(line.epoch == 3);
  CHECK(line.dirs == std::vector<std::string>{"/srv/a", "/srv/b"});
  CHECK(line.async_second);
  CHECK(line.strict);
  CHECK(line.ring == 8388608);
  CHECK(line.threads == 5);
  CHECK(line.skip == std::vector<std::string>{"x y"});
  CHECK(line.distant.empty());
  const std::string more = whole_line + std::string(" distant=10.0.0.3:7000 distant=10.0.0.4:7000");
  CHECK_FALSE(parse_open(request_of(more), line).failed());
  CHECK(line.distant == std::vector<std::string>{"10.0.0.3:7000", "10.0.0.4:7000"});
}

TEST_CASE("open: what cannot be is refused") {
  OpenLine line;
  for (const auto& wrong :
       {with("role", "third"),
        with("set", "00"),
        with("set", std::string(32, 'g')),
        with("epoch", "0"),
        with("epoch", "-1"),
        with("epoch", "1x"),
        with("ring", "1"),
        with("async", "first"),
        with("ack", "never"),
        with("threads", "0"),
        with("state", "s"),
        with("state", "/srv/a/s"),
        with("dir", "srv"),
        with("dir", "/"),
        with("dir", "/srv/b"),
        with("dir", "/srv/b/c"),
        with("peer", ""),
        with("cert", ""),
        whole_line + std::string(" distant=a:1 distant=b:1 distant=c:1 distant=d:1 distant=e:1"),
        whole_line + std::string(" more=1")}) {
    CAPTURE(wrong);
    CHECK(parse_open(request_of(wrong), line).code == "EINVAL");
  }
}

TEST_CASE("open: what the superblock does not allow is refused") {
  OpenLine line;
  REQUIRE_FALSE(parse_open(request_of(whole_line), line).failed());
  SuperState state;
  CHECK_FALSE(check_super(state, line, false).failed());
  memcpy(state.set, line.set, sizeof state.set);
  state.epoch = 3;
  state.state = DiskState::in_sync;
  CHECK_FALSE(check_super(state, line, false).failed());
  state.epoch = 4;
  CHECK(check_super(state, line, false).code == "EPOCH");
  state.role = uint32_t(RoleKind::prim);
  CHECK_FALSE(check_super(state, line, true).failed());
  state.role = uint32_t(RoleKind::second);
  CHECK(check_super(state, line, true).code == "EPOCH");
  state.epoch = 3;
  state.state = DiskState::outdated;
  CHECK(check_super(state, line, false).code == "STATE");
  state.state = DiskState::failed;
  CHECK(check_super(state, line, false).code == "STATE");
  state.state = DiskState::in_sync;
  state.set[3] ^= 1;
  CHECK(check_super(state, line, false).code == "SET");
}

TEST_CASE("history: the oldest epoch goes when it is full") {
  SuperState state;
  for (uint64_t epoch = 1; epoch <= max_history + 2; epoch++) add_epoch(state, {epoch, 0, 1, 0});
  CHECK(state.history_size == max_history);
  CHECK(state.history[0].epoch == 3);
  CHECK(state.history[max_history - 1].epoch == max_history + 2);
}

TEST_CASE("options") {
  const auto parse = [](std::vector<std::string> words, Options& out) {
    std::vector<char*> arguments{const_cast<char*>("holdfast-replica")};
    for (auto& word : words) arguments.push_back(word.data());
    return parse_options(int(arguments.size()), arguments.data(), out);
  };
  Options options;
  CHECK(parse({"--control", "/s", "--name", "n", "--ring", "8388608"}, options) == "");
  CHECK(options.ring == 8388608);
  CHECK(options.mode == Options::Mode::holder);
  CHECK(parse({"--name", "n"}, options) == "");  // kept from above
  Options fresh;
  CHECK(parse({"--name", "n"}, fresh) != "");
  CHECK(parse({"--control", "/s", "--name", "n", "--ring", "17"}, fresh) != "");
  CHECK(parse({"--control", "/s", "--name", "n", "--rings", "17"}, fresh) != "");
  CHECK(parse({"--control", "/s", "--name"}, fresh) != "");
  CHECK(parse({"--control", std::string(200, 'x'), "--name", "n"}, fresh) != "");
}

TEST_CASE("backoff: five deaths at once cost nothing, more cost more, up to a bound") {
  Backoff backoff;
  uint64_t now = 1'000'000'000;
  for (int i = 0; i < 5; i++) CHECK(backoff.died(now += 1'000'000) == 0);
  int last = 0;
  for (int i = 0; i < 20; i++) {
    const int wait = backoff.died(now += 1'000'000 + uint64_t(last) * 1'000'000);
    CHECK(wait >= last);
    CHECK(wait <= 5000);
    last = wait;
  }
  CHECK(last == 5000);
  CHECK(backoff.died(now + 60'000'000'000) == 0);
}

TEST_CASE("store: what is kept comes to the next worker, sessions before files") {
  auto pair = store_pair();
  REQUIRE(pair.ok());
  Store store(std::move(pair.value.second));
  const int holder = pair.value.first.get();
  Fd file(open("/dev/null", O_RDONLY | O_CLOEXEC)), other(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  CHECK(store.keep(StoreKind::open_file, 77, file.get()) == 0);
  CHECK(store.keep(StoreKind::fuse, 0, other.get()) == 0);
  CHECK(store.keep(StoreKind::directory, 0, other.get()) == 0);
  store.drop(StoreKind::directory, 0);
  store.drop(StoreKind::directory, 9);  // not there: nothing is said
  StoreMessage message;
  std::vector<StoreVerb> verbs;
  while (store_receive(holder, false, message) == 0) {
    verbs.push_back(message.verb);
    CHECK(message.fd.valid() == (message.verb == StoreVerb::keep));
  }
  CHECK(verbs == std::vector{StoreVerb::keep, StoreVerb::keep, StoreVerb::keep, StoreVerb::drop});
  CHECK(store.count() == 2);
  CHECK(inode_of(store.get(StoreKind::open_file, 77).get()) == inode_of(file.get()));
  CHECK_FALSE(store.get(StoreKind::open_file, 78).valid());

  // The holder dies; another gets everything.
  auto next = store_pair();
  REQUIRE(next.ok());
  CHECK(store.replace(std::move(next.value.second)) == 0);
  CHECK(store_receive(next.value.first.get(), false, message) == 0);
  CHECK(message.kind == StoreKind::fuse);
  CHECK(store_receive(next.value.first.get(), false, message) == 0);
  CHECK(message.kind == StoreKind::open_file);
  CHECK(message.key == 77);
  CHECK(inode_of(message.fd.get()) == inode_of(file.get()));
  CHECK(store_receive(next.value.first.get(), false, message) == 0);
  CHECK(message.verb == StoreVerb::end);
}

TEST_CASE("store: a new worker loads what the holder sends, to its end") {
  auto pair = store_pair();
  REQUIRE(pair.ok());
  const int holder = pair.value.first.get();
  Fd file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  CHECK(store_send(holder, StoreVerb::here, StoreKind::fuse, 1, file.get()) == 0);
  CHECK(store_send(holder, StoreVerb::here, StoreKind::open_file, 5, file.get()) == 0);
  CHECK(store_send(holder, StoreVerb::end, StoreKind::fuse, 0, -1) == 0);
  Store store(std::move(pair.value.second));
  CHECK(store.load() == 0);
  CHECK(store.count() == 2);
  store.drop_all(StoreKind::open_file);
  CHECK(store.count() == 1);
  pair.value.first.reset();
  // Without a holder it goes on, and the next one is told.
  CHECK(store.keep(StoreKind::directory, 2, file.get()) == 0);
  CHECK(store.count() == 2);
}

TEST_CASE("store: the end and nonsense are told apart") {
  auto pair = store_pair();
  REQUIRE(pair.ok());
  StoreMessage message;
  CHECK(store_receive(pair.value.first.get(), false, message) == EAGAIN);
  CHECK(send(pair.value.second.get(), "short", 5, 0) == 5);
  CHECK(store_receive(pair.value.first.get(), false, message) == EBADMSG);
  const StoreHead wrong{9, 1, 0};
  CHECK(send(pair.value.second.get(), &wrong, sizeof wrong, 0) == sizeof wrong);
  CHECK(store_receive(pair.value.first.get(), false, message) == EBADMSG);
  pair.value.second.reset();
  CHECK(store_receive(pair.value.first.get(), false, message) == EPIPE);
  CHECK(store_send(pair.value.first.get(), StoreVerb::end, StoreKind::fuse, 0, -1) == EPIPE);
}

TEST_CASE("control socket: one that answers is not taken, a stale one is") {
  Scratch scratch;
  const std::string path = scratch.path + "/s";
  auto first = listen_control(path);
  REQUIRE(first.ok());
  struct stat attributes {};
  REQUIRE(stat(path.c_str(), &attributes) == 0);
  CHECK((attributes.st_mode & 0777) == 0600);
  CHECK(listen_control(path).error == EADDRINUSE);
  first.value.reset();
  CHECK(listen_control(path).ok());
  CHECK(listen_control(scratch.path + "/no/s").error == ENOENT);
}

TEST_CASE("mounts: the root is there, and what is none is not") {
  const auto root = mount_at("/");
  REQUIRE(root.has_value());
  CHECK(root->type != "");
  CHECK_FALSE(mount_at("/no such path").has_value());
  const auto proc = mount_at("/proc");
  REQUIRE(proc.has_value());
  CHECK(proc->type == "proc");
}
