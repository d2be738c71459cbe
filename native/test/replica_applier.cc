#include <doctest/doctest.h>
#include <sys/xattr.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "replica/applier.h"
#include "replica/orphanage.h"
#include "replica/scan.h"
#include "test/replica_copy.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

/** Records by hand. */
struct Script {
  std::vector<uint8_t> bytes;
  Tail tail;

  void add(Kind kind, FileId file, const void* body, size_t size, const std::string& text,
           uint16_t flags = 0) {
    const iovec parts[2] = {{const_cast<void*>(body), size},
                            {const_cast<char*>(text.data()), text.size()}};
    RecordHead head{};
    head.kind = static_cast<uint16_t>(kind);
    head.flags = flags;
    head.file = file;
    measure_payload(parts, head);
    const size_t at = bytes.size();
    bytes.resize(at + record_size(head.payload_size));
    write_record(bytes.data() + at, head, parts, tail, 1);
  }
  void create(FileId id, FileId parent, const std::string& name, uint32_t mode) {
    CreateBody body{};
    body.parent = parent;
    body.mode = mode;
    body.mtime = body.parent_mtime = {1000, 0, 0};
    body.name_size = static_cast<uint16_t>(name.size());
    add(Kind::create, id, &body, sizeof body, name);
  }
  void write(FileId id, uint64_t offset, const std::string& data) {
    const WriteBody body{offset, {1001, 0, 0}};
    add(Kind::write, id, &body, sizeof body, data);
  }
  void unlink(FileId id, FileId parent, const std::string& name, bool folder) {
    UnlinkBody body{};
    body.parent = parent;
    body.parent_mtime = {1002, 0, 0};
    body.name_size = static_cast<uint32_t>(name.size());
    body.is_directory = folder ? 1 : 0;
    add(Kind::unlink, id, &body, sizeof body, name, flag_last_name);
  }
  Batch batch() const {
    auto copy = std::make_shared<std::vector<uint8_t>>(bytes);
    Batch out;
    out.records = *copy;
    out.memory = std::move(copy);
    out.end.tail = tail;
    return out;
  }
};

const History& no_history() {
  static const History history(1, {});
  return history;
}

struct World {
  Copy copy{no_history()};
  Life life{copy};
  Sink sink;
  Applier applier{life.tree, life.ids, {}, sink};
  Fd root = copy.scratch.folder("v1");

  bool run(const Script& script, bool replay = false) {
    REQUIRE(applier.start({}, replay ? ApplyMode::replay : ApplyMode::normal) == 0);
    applier.submit(script.batch());
    const bool drained = applier.drain();
    applier.stop();
    return drained;
  }
  struct stat attributes(const char* name) {
    struct stat found {};
    CHECK(fstatat(root.get(), name, &found, AT_SYMLINK_NOFOLLOW) == 0);
    return found;
  }
};

constexpr FileId id_a = 1001, id_b = 1002, id_c = 1003;

}  // namespace

TEST_CASE("applier: outside a replay, what is not as it must be stops it and changes nothing") {
  if (skipped()) return;
  SUBCASE("a name that is taken") {
    World world;
    const Fd stray(openat(world.root.get(), "a", O_CREAT | O_RDWR, 0600));
    Script script;
    script.create(id_a, 1, "a", S_IFREG | 0644);
    CHECK_FALSE(world.run(script));
    CHECK(world.sink.failure.error == EEXIST);
    CHECK(world.sink.failure.lsn == 1);
    CHECK((world.attributes("a").st_mode & 0777) == 0600);
  }
  SUBCASE("a name that is another file") {
    World world;
    Script script;
    script.create(id_a, 1, "a", S_IFREG | 0644);
    script.create(id_b, 1, "b", S_IFREG | 0644);
    script.unlink(id_a, 1, "b", false);
    script.create(id_c, 1, "c", S_IFREG | 0644);
    CHECK_FALSE(world.run(script));
    CHECK(world.sink.failure.error == ESTALE);
    CHECK(world.sink.failure.kind == Kind::unlink);
    CHECK(world.sink.failure.lsn == 3);
    CHECK(world.attributes("b").st_nlink == 1);
    CHECK(faccessat(world.root.get(), "c", F_OK, 0) != 0);
    CHECK(world.applier.applied().tail.lsn == 0);
  }
  SUBCASE("a file that is gone") {
    World world;
    Script script;
    script.write(id_a, 0, "data");
    CHECK_FALSE(world.run(script));
    CHECK(world.sink.failure.error == ESTALE);
  }
}

TEST_CASE("applier: a new file has exactly the mode, the owner and the ACLs that it was given") {
  if (skipped()) return;
  World world;
  REQUIRE(mkdirat(world.root.get(), "in", 0755) == 0);
  const Fd in(openat(world.root.get(), "in", O_RDONLY | O_DIRECTORY));
  REQUIRE(fchown(in.get(), 0, 7) == 0);
  REQUIRE(fchmod(in.get(), 02755) == 0);  // new files would get its group
  if (fsetxattr(in.get(), "system.posix_acl_default", default_acl, sizeof default_acl - 1, 0) !=
      0) {
    MESSAGE("no ACLs on this file system");
  }
  IdEntry entry;
  struct stat attributes;
  REQUIRE(world.life.tree.identify(in.get(), entry.handle, attributes) == 0);
  entry.id = 500;
  entry.type = S_IFDIR;
  REQUIRE(world.life.ids.put(entry) == 0);
  Script script;
  script.create(id_a, 500, "a", S_IFREG | 06666);
  script.create(id_b, 500, "b", S_IFDIR | 0777);
  script.create(id_c, 500, "c", S_IFIFO | 0622);
  const mode_t before = umask(077);
  CHECK(world.run(script));
  umask(before);
  CHECK(world.attributes("in/a").st_mode == (S_IFREG | 06666));
  CHECK(world.attributes("in/b").st_mode == (S_IFDIR | 0777));
  CHECK(world.attributes("in/c").st_mode == (S_IFIFO | 0622));
  for (const char* name : {"in/a", "in/b", "in/c"}) {
    CHECK(world.attributes(name).st_gid == 0);
    CHECK(world.attributes(name).st_mtim.tv_sec == 1000);
    CHECK(world.attributes(name).st_atim.tv_sec == 1000);
    char list[100];
    const std::string path = world.copy.scratch.at("v1/") + name;
    CHECK(listxattr(path.c_str(), list, sizeof list) <= 0);
  }
}

TEST_CASE("applier: a folder goes with what was never replicated in it, but with nothing else") {
  if (skipped()) return;
  World world;
  Script script;
  script.create(id_a, 1, "a", S_IFDIR | 0755);
  script.create(id_b, 1, "b", S_IFDIR | 0755);
  script.create(id_c, id_b, "c", S_IFREG | 0644);
  REQUIRE(world.applier.start({}, ApplyMode::normal) == 0);
  world.applier.submit(script.batch());
  REQUIRE(world.applier.drain());
  REQUIRE(mkdirat(world.root.get(), "a/tmp", 0755) == 0);
  REQUIRE(mkdirat(world.root.get(), "a/tmp/deep", 0755) == 0);
  REQUIRE(Fd(openat(world.root.get(), "a/tmp/deep/x", O_CREAT | O_RDWR, 0600)).valid());
  REQUIRE(Fd(openat(world.root.get(), "b/x", O_CREAT | O_RDWR, 0600)).valid());
  Script more;
  more.tail = script.tail;
  more.unlink(id_a, 1, "a", true);
  more.unlink(id_b, 1, "b", true);
  world.applier.submit(more.batch());
  CHECK_FALSE(world.applier.drain());
  CHECK(faccessat(world.root.get(), "a", F_OK, 0) != 0);
  CHECK(world.sink.failure.error == ENOTEMPTY);
  CHECK(world.attributes("b/c").st_nlink == 1);
}

TEST_CASE("applier: the orphanage leaves no trace, and keeps a file that a record still knows") {
  if (skipped()) return;
  World world;
  const Fd stray(openat(world.root.get(), "a", O_CREAT | O_RDWR, 0600));
  const timespec times[2] = {{5, 0}, {77, 5}};
  REQUIRE(futimens(world.root.get(), times) == 0);
  Orphanage orphanage(world.life.tree, world.life.ids, 0);
  REQUIRE(orphanage.look() == 0);
  int fd = -1;
  REQUIRE(orphanage.get(fd) == 0);
  CHECK(world.attributes(".").st_mtim.tv_sec == 77);
  REQUIRE(orphanage.take(world.root.get(), "a", 0) == 0);
  IdEntry entry;
  struct stat attributes;
  REQUIRE(world.life.tree.identify(stray.get(), entry.handle, attributes) == 0);
  entry.id = 500;
  entry.type = S_IFREG;
  REQUIRE(world.life.ids.put(entry) == 0);
  CHECK(orphanage.empty() == EUCLEAN);
  world.life.ids.set_flags(500, id_unlinked, 0);
  REQUIRE(futimens(world.root.get(), times) == 0);
  CHECK(orphanage.empty() == 0);
  CHECK(world.attributes(".").st_mtim.tv_sec == 77);
  CHECK(world.attributes(".").st_mtim.tv_nsec == 5);
  CHECK(faccessat(world.root.get(), orphanage_name, F_OK, 0) != 0);
  // Stopped between the making and the mtime: the next look puts it right.
  const timespec saved{33, 0};
  REQUIRE(fsetxattr(world.root.get(), "trusted.holdfast.mtime", &saved, sizeof saved, 0) == 0);
  Orphanage after(world.life.tree, world.life.ids, 0);
  CHECK(after.look() == 0);
  CHECK(world.attributes(".").st_mtim.tv_sec == 33);
}

TEST_CASE("applier: ids of removed files go when no replay can need them") {
  if (skipped()) return;
  World world;
  Script script;
  script.create(id_a, 1, "a", S_IFREG | 0644);
  script.unlink(id_a, 1, "a", false);
  REQUIRE(world.applier.start({}, ApplyMode::normal) == 0);
  world.applier.submit(script.batch());
  REQUIRE(world.applier.drain());
  IdEntry entry;
  CHECK(world.life.ids.get(id_a, entry));
  CHECK(entry.flags == id_unlinked);
  const Result<JournalPoint> first = world.applier.checkpoint();
  REQUIRE(first.ok());
  CHECK(first.value.tail.lsn == 2);
  Script next;
  next.tail = script.tail;
  next.create(id_b, 1, "b", S_IFREG | 0644);
  world.applier.submit(next.batch());
  REQUIRE(world.applier.drain());
  CHECK(world.life.ids.get(id_a, entry));  // the first checkpoint may not be saved yet
  REQUIRE(world.applier.checkpoint().ok());
  next.bytes.clear();
  next.write(id_b, 0, "x");
  world.applier.submit(next.batch());
  REQUIRE(world.applier.drain());
  CHECK_FALSE(world.life.ids.get(id_a, entry));
  CHECK(world.life.ids.get(id_b, entry));
}

TEST_CASE("applier: whoever submits waits while too much is queued, and is let go by stop") {
  if (skipped()) return;
  struct Slow final : ApplierSink {
    std::mutex mutex;
    std::condition_variable changed;
    bool go = false, waiting = false;
    void applied(Lsn) override {
      std::unique_lock lock(mutex);
      waiting = true;
      changed.notify_all();
      changed.wait(lock, [&] { return go; });
    }
    void replayed(Lsn) override {}
    void failed(const ApplyFailure&) override {}
    void checked(const CheckResult&) override {}
    void missing(const Missing&, Lsn) override {}
    int synced(const Record&, const JournalPoint&) override { return 0; }
  } sink;
  World world;
  Script script;
  script.create(id_a, 1, "a", S_IFREG | 0644);
  script.write(id_a, 0, std::string(4000, 'x'));
  Script more;
  more.tail = script.tail;
  more.write(id_a, 0, std::string(4000, 'y'));
  ApplierOptions options;
  options.max_queued = 1000;
  Applier applier(world.life.tree, world.life.ids, options, sink);
  REQUIRE(applier.start({}, ApplyMode::normal) == 0);
  CHECK(applier.submit(script.batch()));
  {
    std::unique_lock lock(sink.mutex);
    sink.changed.wait(lock, [&] { return sink.waiting; });
  }
  CHECK(applier.submit(more.batch()));  // one batch is always taken
  CHECK(applier.queued() > options.max_queued);
  bool last = true;
  std::thread submitter([&] { last = applier.submit(more.batch()); });
  std::thread stopper([&] { applier.stop(); });
  submitter.join();
  CHECK_FALSE(last);
  {
    std::lock_guard lock(sink.mutex);
    sink.go = true;
  }
  sink.changed.notify_all();
  stopper.join();
  CHECK(applier.applied().tail.lsn == 2);
}
