// A server that is killed in the middle of a change: the application sees a pause, the change is
// made once, and is in the log once.

#include <sys/un.h>
#include <sys/xattr.h>

#include "test/replica_server_world.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

constexpr int give_up_s = 20;

void send_fd(int socket, FileId id, int fd) {
  iovec part{&id, sizeof id};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(head), &fd, sizeof fd);
  sendmsg(socket, &message, 0);
}

bool receive_fd(int socket, FileId& id, Fd& fd) {
  iovec part{&id, sizeof id};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(socket, &message, MSG_DONTWAIT) != sizeof id) return false;
  int number = -1;
  std::memcpy(&number, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof number);
  fd.reset(number);
  return true;
}

struct Outcome {
  int error = 0;  // of the application's call
  bool killed = false;
  std::vector<Kept> records;
};

/**
 * Prepares with a first server, which then is killed at `at` while `act` runs; a second one goes
 * on. Each in a process of its own, as the application is.
 */
class Scene {
 public:
  Scene() { REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets_) == 0); }
  ~Scene() {
    close(sockets_[0]);
    close(sockets_[1]);
  }

  Outcome run(KillAt at, const std::function<int()>& prepare, const std::function<int()>& act,
              int spared = 0) {
    {
      auto first = world.make_server();
      REQUIRE(first->mount(0, world.dir.c_str(), world.kept) == 0);
      // It is served by the process that is to die.
    }
    for (size_t i = 0; i < intent_slots; i++) world.shared->intents[i].phase = 0;
    int ready[2];
    int go[2];
    REQUIRE((pipe(ready) == 0 && pipe(go) == 0));
    const pid_t serving = fork();
    if (serving == 0) {
      world.options.keep = [this](FileId id, int fd) { send_fd(sockets_[1], id, fd); };
      auto server = world.make_server();
      const bool well = server->adopt(0, world.dir.c_str(), Fd(dup(world.kept.get()))) == 0 &&
                        server->start() == 0;
      if (!well || write(ready[1], "", 1) != 1) _exit(1);
      for (;;) pause();
    }
    char byte = 0;
    REQUIRE(read(ready[0], &byte, 1) == 1);
    const pid_t application = fork();
    if (application == 0) {
      // Who waits for an answer must not be what keeps the connection alive.
      for (int fd = 3; fd < 1024; fd++) {
        if (fd != ready[1] && fd != go[0]) close(fd);
      }
      alarm(give_up_s);
      if (prepare && prepare() != 0) _exit(250);
      if (write(ready[1], "", 1) != 1 || read(go[0], &byte, 1) != 1) _exit(251);
      _exit(act() == 0 ? 0 : errno);
    }
    REQUIRE(read(ready[0], &byte, 1) == 1);
    const uint32_t before = world.memory->count;
    world.memory->spared = spared;
    world.memory->armed = static_cast<int>(at);
    REQUIRE(write(go[1], "", 1) == 1);
    Outcome outcome;
    int status = 0;
    if (at == KillAt::never) {
      waitpid(application, &status, 0);
      kill(serving, SIGKILL);
      waitpid(serving, nullptr, 0);
      outcome.error = WEXITSTATUS(status);
    } else {
      alarm(give_up_s);
      waitpid(serving, &status, 0);
      alarm(0);
      outcome.killed = WIFSIGNALED(status);
      world.memory->armed = static_cast<int>(KillAt::never);
      resume();
      waitpid(application, &status, 0);
      outcome.error = WIFEXITED(status) ? WEXITSTATUS(status) : 255;
    }
    for (uint32_t i = before; i < world.memory->count; i++) {
      outcome.records.push_back(world.memory->records[i]);
    }
    for (const int fd : {ready[0], ready[1], go[0], go[1]}) close(fd);
    return outcome;
  }

  void resume() {
    // A new process reads the table of ids anew.
    world.tree.reset();
    world.ids = std::make_unique<Ids>();
    REQUIRE(world.ids->open(world.base + "/ids").ok());
    world.tree = std::make_unique<Tree>(*world.ids, 64);
    REQUIRE(world.tree->add_volume(Fd(dup(world.under.get()))).ok());
    world.server = world.make_server();
    FileId id = 0;
    for (Fd fd; receive_fd(sockets_[0], id, fd);) world.server->adopt_file(id, std::move(fd));
    REQUIRE(world.server->adopt(0, world.dir.c_str(), Fd(dup(world.kept.get()))) == 0);
    REQUIRE(world.server->start() == 0);
  }

  World world;

 private:
  int sockets_[2];
};

struct Case {
  const char* name;
  Kind kind;
  std::function<int(const std::string&)> prepare;
  std::function<int(const std::string&)> act;
};

int make_file(const std::string& path) {
  const Fd fd(open(path.c_str(), O_CREAT | O_WRONLY, 0644));
  return fd.valid() && write(fd.get(), "abc", 3) == 3 ? 0 : -1;
}

std::vector<Case> cases() {
  using P = const std::string&;
  const auto none = [](P) { return 0; };
  const auto file = [](P d) { return make_file(d + "/f"); };
  return {
      {"create", Kind::create, none,
       [](P d) { return Fd(open((d + "/n").c_str(), O_CREAT | O_EXCL | O_RDWR, 0640)).get() < 0; }},
      {"mkdir", Kind::create, none, [](P d) { return mkdir((d + "/n").c_str(), 0750); }},
      {"mknod", Kind::create, none,
       [](P d) { return mknod((d + "/n").c_str(), S_IFIFO | 0600, 0); }},
      {"symlink", Kind::create, none, [](P d) { return symlink("to", (d + "/n").c_str()); }},
      {"unlink", Kind::unlink, file, [](P d) { return unlink((d + "/f").c_str()); }},
      {"rmdir", Kind::unlink, [](P d) { return mkdir((d + "/f").c_str(), 0755); },
       [](P d) { return rmdir((d + "/f").c_str()); }},
      {"rename", Kind::rename, file,
       [](P d) { return rename((d + "/f").c_str(), (d + "/n").c_str()); }},
      {"rename over", Kind::rename, [](P d) { return make_file(d + "/f") + make_file(d + "/n"); },
       [](P d) { return rename((d + "/f").c_str(), (d + "/n").c_str()); }},
      {"exchange", Kind::rename,
       [](P d) { return make_file(d + "/f") + mkdir((d + "/n").c_str(), 0755); },
       [](P d) {
         return renameat2(AT_FDCWD, (d + "/f").c_str(), AT_FDCWD, (d + "/n").c_str(),
                          RENAME_EXCHANGE);
       }},
      {"link", Kind::link, file, [](P d) { return link((d + "/f").c_str(), (d + "/n").c_str()); }},
      {"setxattr", Kind::set_xattr, file,
       [](P d) { return setxattr((d + "/f").c_str(), "trusted.a", "1", 1, XATTR_CREATE); }},
      {"removexattr", Kind::remove_xattr,
       [](P d) {
         return make_file(d + "/f") + setxattr((d + "/f").c_str(), "trusted.a", "1", 1, 0);
       },
       [](P d) { return removexattr((d + "/f").c_str(), "trusted.a"); }},
      {"write", Kind::write, file,
       [](P d) {
         const Fd fd(open((d + "/f").c_str(), O_WRONLY));
         return pwrite(fd.get(), "xyz", 3, 3) == 3 ? 0 : -1;
       }},
  };
}

}  // namespace

TEST_CASE("a change goes on where a killed server stopped: made once, in the log once") {
  if (!is_root()) return;
  for (const KillAt at : {KillAt::reserve, KillAt::before_append, KillAt::after_append,
                          KillAt::before_answer, KillAt::after_answer}) {
    for (const Case& c : cases()) {
      CAPTURE(std::string(c.name));
      CAPTURE(static_cast<int>(at));
      Scene scene;
      const std::string dir = scene.world.dir;
      const Outcome outcome = scene.run(
          at, [&] { return c.prepare(dir); }, [&] { return c.act(dir); });
      CHECK(outcome.error == 0);
      CHECK(outcome.killed);
      // A write, and an extended attribute, say the same however often they are in the log.
      const bool once =
          c.kind != Kind::write && c.kind != Kind::set_xattr && c.kind != Kind::remove_xattr;
      size_t of_kind = 0;
      for (const Kept& record : outcome.records) of_kind += record.kind == c.kind ? 1 : 0;
      CHECK(of_kind >= 1);
      if (once) CHECK(of_kind == 1);
    }
  }
}

TEST_CASE("a file that becomes replicated gets its name once, wherever the server is killed") {
  if (!is_root()) return;
  const auto tmpfile = [](const std::string& dir) {
    const Fd fd(open(dir.c_str(), O_TMPFILE | O_RDWR, 0600));
    if (!fd.valid() || write(fd.get(), "text", 4) != 4) return -1;
    const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
    return linkat(AT_FDCWD, self.c_str(), AT_FDCWD, (dir + "/n").c_str(), AT_SYMLINK_FOLLOW);
  };
  const auto move_in = [](const std::string& dir) {
    return rename((dir + "/f.new").c_str(), (dir + "/n").c_str());
  };
  const auto local = [](const std::string& dir) { return make_file(dir + "/f.new"); };
  const auto both = [](const std::string& dir) {
    return make_file(dir + "/f.new") + make_file(dir + "/n");
  };
  const std::vector<Case> all = {
      {"tmpfile", Kind::link, [](const std::string&) { return 0; }, tmpfile},
      {"move in", Kind::link, local, move_in},
      {"move over", Kind::rename, both, move_in}};
  for (const Case& c : all) {
    for (const KillAt at : {KillAt::before_append, KillAt::after_append}) {
      for (int passed = 0; passed < 4; passed++) {
        CAPTURE(std::string(c.name));
        CAPTURE(static_cast<int>(at));
        CAPTURE(passed);
        Scene scene;
        scene.world.options.skip = {".*\\.new"};
        const std::string dir = scene.world.dir;
        const Outcome outcome = scene.run(
            at, [&] { return c.prepare(dir); },
            [&] {
              // It is replicated from then on.
              return c.act(dir) != 0 ? -1 : chmod((dir + "/n").c_str(), 0644);
            },
            passed);
        CHECK(outcome.error == 0);
        CHECK(outcome.killed);
        const std::vector<Kept>& r = outcome.records;
        // inode, write, inode, the name, and the change after that.
        REQUIRE(r.size() >= 5);
        const std::vector<Kind> end = {Kind::inode, Kind::write, Kind::inode, c.kind,
                                       Kind::attributes};
        for (size_t i = 0; i < end.size(); i++) CHECK(r[r.size() - end.size() + i].kind == end[i]);
        size_t names = 0;
        for (const Kept& record : r) names += record.kind == c.kind ? 1 : 0;
        CHECK(names == 1);
      }
    }
  }
}

TEST_CASE("a file that is open and has no name survives the server") {
  if (!is_root()) return;
  Scene scene;
  const std::string dir = scene.world.dir;
  int fd = -1;
  const auto prepare = [&] {
    fd = open((dir + "/f").c_str(), O_CREAT | O_RDWR, 0600);
    if (fd < 0 || write(fd, "kept", 4) != 4) return -1;
    return unlink((dir + "/f").c_str());
  };
  const auto act = [&] {
    if (mkdir((dir + "/n").c_str(), 0755) != 0) return -1;
    char text[8] = {};
    struct stat now {};
    if (pwrite(fd, "more", 4, 4) != 4 || fsync(fd) != 0 || fstat(fd, &now) != 0) return -1;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (pread(fd, text, 8, 0) != 8 || std::memcmp(text, "keptmore", 8) != 0) return -1;
    return close(fd);
  };
  const Outcome outcome = scene.run(KillAt::before_append, prepare, act);
  CHECK(outcome.error == 0);
  CHECK(outcome.killed);
  REQUIRE(outcome.records.size() == 1);
  CHECK(outcome.records[0].kind == Kind::create);
}
