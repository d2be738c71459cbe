// The file system server: what it puts into the log, and what applications see.

#include <linux/falloc.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include <thread>

#include "replica/skip.h"
#include "test/replica_server_world.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

constexpr char access_key[] = "system.posix_acl_access";
constexpr char default_key[] = "system.posix_acl_default";

/** An ACL with an entry for one user, as the xattr's value (posix_acl_xattr.h). */
std::string access_acl(uint32_t mode) {
  const struct {
    uint16_t tag, permissions;
    uint32_t id;
  } entries[] = {{1, static_cast<uint16_t>(mode >> 6 & 7), 0xffffffff},
                 {2, 5, 12001},
                 {4, 7, 0xffffffff},
                 {16, static_cast<uint16_t>(mode >> 3 & 7), 0xffffffff},
                 {32, static_cast<uint16_t>(mode & 7), 0xffffffff}};
  return std::string("\x02\0\0\0", 4) +
         std::string(reinterpret_cast<const char*>(entries), sizeof entries);
}

Fd open_file(const std::string& path, int flags, mode_t mode = 0644) {
  return Fd(open(path.c_str(), flags | O_CLOEXEC, mode));
}

std::vector<Kind> kinds(const std::vector<Kept>& records) {
  std::vector<Kind> out;
  for (const Kept& record : records) out.push_back(record.kind);
  return out;
}

/** Descriptors of this process, the server's too, that are this real file. */
size_t open_on(const struct stat& real) {
  size_t count = 0;
  for (int fd = 0; fd < 1024; fd++) {
    // By its path: the server may be closing it, which TSan takes for a race with fstat.
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    struct stat now {};
    count +=
        stat(path.c_str(), &now) == 0 && now.st_dev == real.st_dev && now.st_ino == real.st_ino;
  }
  return count;
}

}  // namespace

TEST_CASE("records say what is true after each change, in order") {
  if (!is_root()) return;
  World w;
  w.mount();
  umask(022);
  {
    const Fd fd = open_file(w.path("a"), O_CREAT | O_RDWR, 0666);
    REQUIRE(fd.valid());
    REQUIRE(pwrite(fd.get(), "hello", 5, 3) == 5);
  }
  REQUIRE(mkdir(w.path("d").c_str(), 0777) == 0);
  REQUIRE(rename(w.path("a").c_str(), w.path("d/b").c_str()) == 0);
  REQUIRE(truncate(w.path("d/b").c_str(), 4) == 0);
  REQUIRE(link(w.path("d/b").c_str(), w.path("c").c_str()) == 0);
  REQUIRE(unlink(w.path("d/b").c_str()) == 0);
  REQUIRE(unlink(w.path("c").c_str()) == 0);
  REQUIRE(rmdir(w.path("d").c_str()) == 0);
  umask(0);
  const std::vector<Kept> r = w.log->take();
  REQUIRE(kinds(r) == std::vector<Kind>{Kind::create, Kind::write, Kind::create, Kind::rename,
                                        Kind::attributes, Kind::link, Kind::unlink, Kind::unlink,
                                        Kind::unlink});
  const FileId file = r[0].file;
  const FileId folder = r[2].file;
  CHECK(file > max_root);
  CHECK(file != folder);
  CHECK(r[0].body<CreateBody>().parent == 1);
  CHECK(r[0].body<CreateBody>().mode == (S_IFREG | 0644));
  CHECK(r[0].text(sizeof(CreateBody), 1) == "a");
  CHECK(r[1].file == file);
  CHECK(r[1].body<WriteBody>().offset == 3);
  CHECK(r[1].text(sizeof(WriteBody), 5) == "hello");
  CHECK(r[2].body<CreateBody>().mode == (S_IFDIR | 0755));
  CHECK(r[3].file == file);
  CHECK(r[3].body<RenameBody>().new_parent == folder);
  CHECK(r[3].body<RenameBody>().replaced == 0);
  CHECK(r[3].text(sizeof(RenameBody), 2) == "ab");
  CHECK(r[4].body<AttributesBody>().size == 4);
  CHECK((r[4].body<AttributesBody>().mask & attribute_size) != 0);
  CHECK(r[5].file == file);
  CHECK(r[6].flags == 0);
  CHECK(r[7].flags == flag_last_name);
  CHECK(r[8].file == folder);
  CHECK(r[8].flags == flag_last_name);
  for (size_t i = 1; i < r.size(); i++) CHECK(r[i].lsn == r[i - 1].lsn + 1);
  CHECK(eventually([&] { return w.log->balanced(); }));
}

TEST_CASE("what inherits ACLs is in one record with them") {
  if (!is_root()) return;
  World w;
  w.mount();
  REQUIRE(mkdir(w.path("d").c_str(), 0755) == 0);
  const std::string acl = access_acl(0750);
  REQUIRE(setxattr(w.path("d").c_str(), default_key, acl.data(), acl.size(), 0) == 0);
  w.log->take();
  CHECK(open_file(w.path("d/f"), O_CREAT | O_RDWR, 0666).valid());
  REQUIRE(mkdir(w.path("d/e").c_str(), 0777) == 0);
  REQUIRE(symlink("f", w.path("d/l").c_str()) == 0);
  const std::vector<Kept> r = w.log->take();
  REQUIRE(kinds(r) == std::vector<Kind>{Kind::create, Kind::create, Kind::create});
  const auto inherited = [&](const char* name, const char* key) {
    std::string value(400, 0);
    const ssize_t size = lgetxattr(w.path(name).c_str(), key, value.data(), value.size());
    value.resize(size < 0 ? 0 : static_cast<size_t>(size));
    return value;
  };
  const auto file = r[0].body<CreateBody>(), folder = r[1].body<CreateBody>();
  CHECK(file.mode == (S_IFREG | 0640));
  REQUIRE(file.access_size == acl.size());
  CHECK(file.default_size == 0);
  CHECK(r[0].text(sizeof file + 1, acl.size()) == inherited("d/f", access_key));
  CHECK(r[0].size == sizeof file + 1 + acl.size());
  CHECK(folder.mode == (S_IFDIR | 0750));
  REQUIRE(folder.access_size == acl.size());
  REQUIRE(folder.default_size == acl.size());
  CHECK(r[1].text(sizeof folder + 1, acl.size()) == inherited("d/e", access_key));
  CHECK(r[1].text(sizeof folder + 1 + acl.size(), acl.size()) == acl);
  CHECK(r[2].body<CreateBody>().access_size == 0);
  CHECK(eventually([&] { return w.log->balanced(); }));
}

TEST_CASE("a change that fails here is in no record") {
  if (!is_root()) return;
  World w;
  w.mount();
  REQUIRE(mkdir(w.path("d").c_str(), 0755) == 0);
  REQUIRE(mkdir(w.path("d/e").c_str(), 0755) == 0);
  w.log->take();
  CHECK(mkdir(w.path("d").c_str(), 0755) == -1);
  CHECK(rmdir(w.path("d").c_str()) == -1);
  CHECK(errno == ENOTEMPTY);
  CHECK(rename(w.path("d").c_str(), w.path("d/e/f").c_str()) == -1);
  CHECK(unlink(w.path("x").c_str()) == -1);
  CHECK(errno == ENOENT);
  CHECK(removexattr(w.path("d").c_str(), "trusted.no") == -1);
  CHECK(errno == ENODATA);
  CHECK(w.log->take().empty());
  CHECK(eventually([&] { return w.log->balanced(); }));
}

TEST_CASE("fsync waits for the peer, once, and only for what is new") {
  if (!is_root()) return;
  World w;
  w.mount();
  const Fd fd = open_file(w.path("a"), O_CREAT | O_RDWR);
  REQUIRE(write(fd.get(), "x", 1) == 1);
  w.log->hold_syncs = true;
  std::atomic<bool> over{false};
  std::thread application([&] {
    CHECK(fdatasync(fd.get()) == 0);
    over = true;
  });
  REQUIRE(eventually([&] { return w.log->waiting() == 1; }));
  CHECK(!over);
  CHECK(w.log->synced() == w.memory->last);
  w.log->acknowledge();
  application.join();
  CHECK(over);
  w.log->hold_syncs = false;
  // The peer's error is the application's only when it ends the wait with one.
  REQUIRE(write(fd.get(), "y", 1) == 1);
  w.log->hold_syncs = true;
  std::thread refused([&] {
    CHECK(fsync(fd.get()) == -1);
    CHECK(errno == EROFS);
  });
  REQUIRE(eventually([&] { return w.log->waiting() == 1; }));
  w.log->acknowledge(EROFS);
  refused.join();
  w.log->hold_syncs = false;
}

TEST_CASE("a write with O_DSYNC, or with RWF_DSYNC, waits for the peer") {
  if (!is_root()) return;
  World w;
  w.mount();
  const Fd fd = open_file(w.path("a"), O_CREAT | O_RDWR);
  const iovec part{const_cast<char*>("abcd"), 4};
  w.log->hold_syncs = true;
  std::thread application([&] { CHECK(pwritev2(fd.get(), &part, 1, 0, RWF_DSYNC) == 4); });
  REQUIRE(eventually([&] { return w.log->waiting() == 1; }));
  CHECK(w.log->take().size() == 2);
  w.log->hold_syncs = false;
  w.log->acknowledge();
  application.join();
}

TEST_CASE("strict: each change waits for the receipt") {
  if (!is_root()) return;
  World w;
  w.log->is_strict = true;
  w.mount();
  w.log->hold_syncs = true;
  std::thread application([&] { CHECK(mkdir(w.path("d").c_str(), 0755) == 0); });
  REQUIRE(eventually([&] { return w.log->waiting() == 1; }));
  CHECK(w.log->take().size() == 1);
  w.log->hold_syncs = false;
  w.log->acknowledge();
  application.join();
}

TEST_CASE("a full log delays changes and loses none; reads go on") {
  if (!is_root()) return;
  World w;
  w.mount();
  const Fd fd = open_file(w.path("a"), O_CREAT | O_RDWR);
  REQUIRE(write(fd.get(), "x", 1) == 1);
  w.log->take();
  w.memory->full = true;
  std::vector<std::thread> applications;
  for (int i = 0; i < 6; i++) {
    applications.emplace_back(
        [&w, i] { CHECK(mkdir(w.path(std::to_string(i).c_str()).c_str(), 0755) == 0); });
  }
  applications.emplace_back([&fd] { CHECK(pwrite(fd.get(), "z", 1, 1) == 1); });
  // Names of one directory come one after the other; the write comes beside them.
  REQUIRE(eventually([&] { return w.server->status().parked_now == 2; }));
  struct statvfs space {};
  CHECK(statvfs(w.dir.c_str(), &space) == 0);
  CHECK(w.log->take().empty());
  w.log->make_room();
  for (std::thread& application : applications) application.join();
  CHECK(w.log->take().size() == 7);
  CHECK(eventually([&] { return w.log->balanced(); }));
}

TEST_CASE("what is written to a file without a name is sent when it gets one") {
  if (!is_root()) return;
  World w;
  w.mount();
  const Fd fd = open_file(w.dir, O_TMPFILE | O_RDWR, 0600);
  REQUIRE(fd.valid());
  REQUIRE(pwrite(fd.get(), "data", 4, 8192) == 4);
  REQUIRE(fsetxattr(fd.get(), "trusted.k", "v", 1, 0) == 0);
  CHECK(w.log->take().empty());
  const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
  REQUIRE(linkat(AT_FDCWD, self.c_str(), AT_FDCWD, w.path("n").c_str(), AT_SYMLINK_FOLLOW) == 0);
  const std::vector<Kept> r = w.log->take();
  // The name comes last: it is there whole or not at all.
  REQUIRE(kinds(r) == std::vector<Kind>{Kind::inode, Kind::write, Kind::inode, Kind::link});
  CHECK(r[0].body<InodeBody>().mode == (S_IFREG | 0600));
  CHECK(r[0].body<InodeBody>().size == 0);
  CHECK(r[1].body<WriteBody>().offset == 8192);
  CHECK(r[2].body<InodeBody>().size == 8196);
  CHECK(r[2].body<InodeBody>().flags == (inode_with_values | inode_all_follows));
  CHECK(r[2].text(sizeof(InodeBody) + sizeof(XattrItem), 10) == "trusted.kv");
  CHECK(r[3].body<LinkBody>().parent == 1);
  CHECK(r[3].text(sizeof(LinkBody), 1) == "n");
  for (const Kept& record : r) CHECK(record.file == r[0].file);
  REQUIRE(pwrite(fd.get(), "more", 4, 0) == 4);
  CHECK(kinds(w.log->take()) == std::vector<Kind>{Kind::write});
  REQUIRE(unlink(w.path("n").c_str()) == 0);
  w.log->take();
  REQUIRE(pwrite(fd.get(), "gone", 4, 0) == 4);
  REQUIRE(fsync(fd.get()) == 0);
  CHECK(w.log->take().empty());
}

TEST_CASE("a file that is made stays open for what follows, until it has no name") {
  if (!is_root()) return;
  World w;
  w.mount();
  struct stat real {};
  {
    const Fd fd = open_file(w.path("a"), O_CREAT | O_RDWR, 0444);
    REQUIRE(fd.valid());
    REQUIRE(fstatat(w.under.get(), "a", &real, 0) == 0);
    CHECK(open_on(real) == 1);
    REQUIRE(pwrite(fd.get(), "data", 4, 0) == 4);
    CHECK(open_on(real) == 1);
  }
  REQUIRE(unlink(w.path("a").c_str()) == 0);
  CHECK(eventually([&] { return open_on(real) == 0; }));
  // As many as the cache holds, and no more.
  for (int i = 0; i < 200; i++) {
    const std::string name = "many" + std::to_string(i);
    REQUIRE(open_file(w.path(name.c_str()), O_CREAT | O_RDWR).valid());
  }
  size_t open = 0;
  for (int i = 0; i < 200; i++) {
    REQUIRE(fstatat(w.under.get(), ("many" + std::to_string(i)).c_str(), &real, 0) == 0);
    open += open_on(real);
  }
  CHECK(open > 0);
  CHECK(open <= 64);
}

TEST_CASE("set-user-id goes with a write of somebody who may not keep it") {
  if (!is_root()) return;
  World w;
  w.mount();
  const Fd fd = open_file(w.path("a"), O_CREAT | O_RDWR, 0777);
  REQUIRE(fchmod(fd.get(), 06777) == 0);
  w.log->take();
  const pid_t child = fork();
  if (child == 0) {
    if (setgid(1000) != 0 || setuid(1000) != 0) _exit(1);
    const Fd mine = open_file(w.path("a"), O_WRONLY);
    _exit(write(mine.get(), "x", 1) == 1 ? 0 : 2);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  struct stat now {};
  fstat(fd.get(), &now);
  CHECK((now.st_mode & 07777) == 0777);
  const std::vector<Kept> r = w.log->take();
  // The kernel says it with the write, or before it, by SETATTR.
  REQUIRE(r.size() == 2);
  const Kept& attributes = r[0].kind == Kind::attributes ? r[0] : r[1];
  REQUIRE(attributes.kind == Kind::attributes);
  CHECK(attributes.body<AttributesBody>().mode == 0777);
}

TEST_CASE("paths that are not replicated are in no record, until they are moved out") {
  if (!is_root()) return;
  World w;
  w.options.skip = {"=tmp", ".*\\.swp"};
  w.mount();
  REQUIRE(mkdir(w.path("tmp").c_str(), 0755) == 0);
  REQUIRE(mkdir(w.path("d").c_str(), 0755) == 0);
  w.log->take();
  {
    const Fd a = open_file(w.path("tmp/a"), O_CREAT | O_RDWR, 0600);
    REQUIRE(write(a.get(), "secret", 6) == 6);
    const Fd b = open_file(w.path("d/b.swp"), O_CREAT | O_RDWR, 0600);
    REQUIRE(write(b.get(), "x", 1) == 1);
    REQUIRE(fsync(b.get()) == 0);
  }
  CHECK(w.log->take().empty());
  CHECK(link(w.path("tmp/a").c_str(), w.path("c").c_str()) == -1);
  CHECK(errno == EXDEV);
  CHECK(rename(w.path("d").c_str(), w.path("tmp/d").c_str()) == -1);
  CHECK(errno == EXDEV);
  REQUIRE(rename(w.path("tmp/a").c_str(), w.path("d/a").c_str()) == 0);
  const std::vector<Kept> r = w.log->take();
  REQUIRE(kinds(r) == std::vector<Kind>{Kind::inode, Kind::write, Kind::inode, Kind::link});
  CHECK(r[1].text(sizeof(WriteBody), 6) == "secret");
  REQUIRE(rename(w.path("d/a").c_str(), w.path("tmp/a").c_str()) == 0);
  const std::vector<Kept> back = w.log->take();
  REQUIRE(kinds(back) == std::vector<Kind>{Kind::unlink});
  CHECK(back[0].flags == flag_last_name);
}

TEST_CASE("a file that is moved in over another one takes its place by one record") {
  if (!is_root()) return;
  World w;
  w.options.skip = {".*\\.new"};
  w.mount();
  const auto put = [&](const char* name) {
    const Fd fd = open_file(w.path(name), O_CREAT | O_RDWR, 0600);
    REQUIRE(write(fd.get(), "text", 4) == 4);
  };
  put("a");
  put("b");
  REQUIRE(link(w.path("b").c_str(), w.path("c").c_str()) == 0);
  put("a.new");
  put("b.new");
  const std::vector<Kept> before = w.log->take();
  REQUIRE(kinds(before) ==
          std::vector<Kind>{Kind::create, Kind::write, Kind::create, Kind::write, Kind::link});
  for (const char* name : {"a", "b"}) {
    const bool last = *name == 'a';
    REQUIRE(rename(w.path((std::string(name) + ".new").c_str()).c_str(), w.path(name).c_str()) ==
            0);
    const std::vector<Kept> r = w.log->take();
    REQUIRE(kinds(r) == std::vector<Kind>{Kind::inode, Kind::write, Kind::inode, Kind::rename});
    const auto body = r[3].body<RenameBody>();
    CHECK(body.parent == 1);
    CHECK(body.new_parent == 1);
    CHECK(body.replaced == before[last ? 0 : 2].file);
    CHECK(r[3].text(sizeof body, 2) == std::string(2, *name));
    CHECK(r[3].flags == (last ? flag_last_name : 0));
  }
  const Fd fd = open_file(w.path("a"), O_WRONLY);
  REQUIRE(write(fd.get(), "more", 4) == 4);
  CHECK(kinds(w.log->take()) == std::vector<Kind>{Kind::write});
  CHECK(eventually([&] { return w.log->balanced(); }));
}

TEST_CASE("rules of what is not replicated") {
  Skip skip;
  CHECK(skip.add("(") == EINVAL);
  CHECK(skip.add("") == EINVAL);
  CHECK(skip.add("=a/b") == 0);
  CHECK(skip.add("log/.*\\.tmp") == 0);
  CHECK(skip.matches("a/b", true));
  CHECK(skip.matches("a/b/c", false));
  CHECK(!skip.matches("a/bc", false));
  CHECK(skip.matches("log/x.tmp", false));
  CHECK(!skip.matches("log/x.tmpl", false));
  Skip only;
  CHECK(only.add("!.*\\.db") == 0);
  CHECK(!only.matches("x/y.db", false));
  CHECK(only.matches("x/y.txt", false));
  CHECK(!only.matches("x", true));
}

TEST_CASE("the product's own folder cannot be seen or made") {
  if (!is_root()) return;
  World w;
  REQUIRE(mkdirat(w.under.get(), ".holdfast", 0700) == 0);
  w.mount();
  struct stat now {};
  CHECK(stat(w.path(".holdfast").c_str(), &now) == -1);
  CHECK(errno == ENOENT);
  CHECK(mkdir(w.path(".holdfast").c_str(), 0700) == -1);
  CHECK(errno == EPERM);
}
