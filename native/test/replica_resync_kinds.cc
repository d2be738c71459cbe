// Resync: every kind of file, large directories, holes, and how much travels.

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <random>

#include "replica/scan.h"
#include "test/replica_resync_world.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

/** Two servers with one directory each. */
struct Two {
  Two() : none(1, {}), here(none), there(none) {}
  int root() const { return source.tree.root_fd(0); }
  int target_root() const { return target.tree.root_fd(0); }
  void scan() { REQUIRE(scan_ids(source.tree, source.ids, 1, Skip()).ok()); }
  FileId id_of(const char* name) {
    Handle handle;
    struct stat now;
    REQUIRE(source.tree.identify(root(), name, handle, now) == 0);
    return source.ids.find(0, handle);
  }

  History none;
  Copy here, there;
  Life source{here}, target{there};
};

void put(int directory, const char* name, const std::string& content, mode_t mode = 0644) {
  const Fd fd(openat(directory, name, O_RDWR | O_CREAT | O_CLOEXEC, mode));
  REQUIRE(fd.valid());
  REQUIRE(pwrite(fd.get(), content.data(), content.size(), 0) == ssize_t(content.size()));
}

std::string content_of(int directory, const char* name) {
  const Fd fd(openat(directory, name, O_RDONLY | O_CLOEXEC));
  struct stat now;
  if (!fd.valid() || fstat(fd.get(), &now) != 0) return "absent";
  std::string out(static_cast<size_t>(now.st_size), 0);
  REQUIRE(pread(fd.get(), out.data(), out.size(), 0) == now.st_size);
  return out;
}

/** Names, attributes and content below both, by name; what differs first. */
std::string compare_trees(Two& two, int a, int b, const std::string& path) {
  std::vector<std::string> left, right;
  if (list_names(a, left) != 0 || list_names(b, right) != 0) return path + ": readdir";
  std::sort(left.begin(), left.end());
  std::sort(right.begin(), right.end());
  if (left != right) return path + ": names";
  for (const std::string& name : left) {
    const std::string at = path + "/" + name;
    Handle ours, theirs;
    struct stat now, then;
    if (two.source.tree.identify(a, name.c_str(), ours, now) != 0) return at;
    if (two.target.tree.identify(b, name.c_str(), theirs, then) != 0) return at;
    if (two.source.ids.find(0, ours) != two.target.ids.find(0, theirs)) return at + ": id";
    if (S_ISDIR(now.st_mode)) {
      const Fd x(openat(a, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      const Fd y(openat(b, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      const std::string said = compare_trees(two, x.get(), y.get(), at);
      if (!said.empty()) return said;
    } else if (now.st_nlink != then.st_nlink) {
      return at + ": links";
    }
    OpenFile x, y;
    x.fd.reset(openat(a, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    y.fd.reset(openat(b, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    Hash one, other;
    if (hash_attributes(x, one) != 0 || hash_attributes(y, other) != 0) return at + ": hash";
    if (!(one == other)) return at + ": attributes";
    if (S_ISREG(now.st_mode) && content_of(a, name.c_str()) != content_of(b, name.c_str())) {
      return at + ": content";
    }
  }
  return "";
}

std::string compare_trees(Two& two) {
  return compare_trees(two, two.root(), two.target_root(), "");
}

std::string first_copy(Two& two, ResyncOptions options = {}) {
  Rejoin rejoin(two.source, two.target);
  rejoin.dirty.touch_listing(1);
  std::string said = rejoin.run(options);
  return said.empty() ? compare_trees(two) : said;
}

}  // namespace

TEST_CASE("resync: a first copy of every kind of file") {
  if (skipped()) return;
  Two two;
  const int root = two.root();
  put(root, "file", "content");
  put(root, "empty", "");
  put(root, "odd \n\xff name", "x", 0);
  put(root, std::string(255, 'n').c_str(), "long");
  put(root, "setuid", "x", 04755);
  REQUIRE(linkat(root, "file", root, "second name", 0) == 0);
  REQUIRE(symlinkat("some/target", root, "symlink") == 0);
  REQUIRE(symlinkat(std::string(4000, 't').c_str(), root, "long symlink") == 0);
  REQUIRE(mknodat(root, "fifo", S_IFIFO | 0600, 0) == 0);
  REQUIRE(mknodat(root, "socket", S_IFSOCK | 0600, 0) == 0);
  REQUIRE(mknodat(root, "char", S_IFCHR | 0600, makedev(1, 3)) == 0);
  REQUIRE(mkdirat(root, "sticky", 01777) == 0);
  REQUIRE(fchownat(root, "sticky", 1234, 5678, 0) == 0);
  REQUIRE(fchownat(root, "symlink", 12, 34, AT_SYMLINK_NOFOLLOW) == 0);
  const timespec times[2] = {{1, 2}, {-5, 999'999'999}};
  REQUIRE(utimensat(root, "file", times, 0) == 0);
  REQUIRE(utimensat(root, "symlink", times, AT_SYMLINK_NOFOLLOW) == 0);
  Fd deep(openat(root, ".", O_RDONLY | O_DIRECTORY));
  for (int n = 0; n < 200; n++) {
    REQUIRE(mkdirat(deep.get(), "a folder", 0755) == 0);
    put(deep.get(), "with", std::to_string(n));
    deep.reset(openat(deep.get(), "a folder", O_RDONLY | O_DIRECTORY));
  }
  REQUIRE(linkat(root, "empty", deep.get(), "third", 0) == 0);
  two.scan();
  CHECK(first_copy(two) == "");
  struct stat now;
  CHECK(fstatat(two.target_root(), ".holdfast", &now, 0) != 0);
}

TEST_CASE("resync: extended attributes, few and many, and ACLs") {
  if (skipped()) return;
  Two two;
  put(two.root(), "few", "x");
  put(two.root(), "many", "y");
  mkdirat(two.root(), "folder", 0755);
  const Fd few(openat(two.root(), "few", O_RDWR)), many(openat(two.root(), "many", O_RDWR));
  const Fd folder(openat(two.root(), "folder", O_RDONLY | O_DIRECTORY));
  REQUIRE(fsetxattr(few.get(), "trusted.one", "value", 5, 0) == 0);
  REQUIRE(fsetxattr(few.get(), "trusted.empty", "", 0, 0) == 0);
  // The server's own are not the file's.
  REQUIRE(fsetxattr(few.get(), "trusted.holdfast.own", "x", 1, 0) == 0);
  const std::string large(60'000, 'v');
  for (int n = 0; n < 6; n++) {
    const std::string name = "trusted.large" + std::to_string(n);
    const int set = fsetxattr(many.get(), name.c_str(), large.data(), large.size(), 0);
    if (set != 0 && n > 0) {
      MESSAGE("this file system has no room for many attributes");
      break;
    }
  }
  const std::string acl = access_acl(0640);
  REQUIRE(fsetxattr(few.get(), "system.posix_acl_access", acl.data(), acl.size(), 0) == 0);
  REQUIRE(fsetxattr(folder.get(), "system.posix_acl_default", default_acl, sizeof default_acl - 1,
                    0) == 0);
  two.scan();
  CHECK(first_copy(two) == "");
  const Fd copy(openat(two.target_root(), "few", O_RDONLY));
  char value[8];
  CHECK(fgetxattr(copy.get(), "trusted.one", value, sizeof value) == 5);
  CHECK(fgetxattr(copy.get(), "trusted.holdfast.own", value, sizeof value) < 0);
  // One that went goes there too.
  REQUIRE(fremovexattr(few.get(), "trusted.one") == 0);
  Rejoin rejoin(two.source, two.target);
  rejoin.dirty.touch_inode(two.id_of("few"));
  CHECK(rejoin.run() == "");
  CHECK(fgetxattr(copy.get(), "trusted.one", value, sizeof value) < 0);
  CHECK(compare_trees(two) == "");
}

TEST_CASE("resync: ten thousand names in a directory, in ranges; what is too many goes") {
  if (skipped()) return;
  Two two;
  for (int n = 0; n < 10'000; n++) put(two.root(), ("f" + std::to_string(n)).c_str(), "");
  mkdirat(two.target_root(), "foreign", 0700);
  put(two.target_root(), "f77777", "foreign");
  two.scan();
  Rejoin rejoin(two.source, two.target);
  rejoin.dirty.touch_listing(1);
  CHECK(rejoin.run() == "");
  CHECK(compare_trees(two) == "");
  CHECK(rejoin.wire.records(Kind::listing) >= 10'000 / 256);
  CHECK(rejoin.dirty.totals().memory == 0);
}

TEST_CASE("resync: what is reported does not pile up: the next names wait") {
  if (skipped()) return;
  Two two;
  for (int n = 0; n < 40; n++) {
    const std::string folder = "d" + std::to_string(n);
    mkdirat(two.root(), folder.c_str(), 0755);
    const Fd fd(openat(two.root(), folder.c_str(), O_RDONLY | O_DIRECTORY));
    for (int f = 0; f < 300; f++) put(fd.get(), std::to_string(f).c_str(), "data");
  }
  two.scan();
  Rejoin rejoin(two.source, two.target, 1u << 20);
  rejoin.dirty.touch_listing(1);
  std::atomic<bool> stop{false};
  uint64_t most = 0;
  std::thread watch([&] {
    while (!stop) {
      most = std::max(most, rejoin.dirty.totals().items);
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  const std::string said = rejoin.run();
  stop = true;
  watch.join();
  CHECK(said == "");
  CHECK(compare_trees(two) == "");
  // 12,000 files: three pieces each would be 36,000 at once.
  CHECK(most < 16'000);
  CHECK(rejoin.wire.most_used() <= 1u << 20);
}

TEST_CASE("resync: holes stay holes, and no zeros travel") {
  if (skipped()) return;
  Two two;
  const Fd fd(openat(two.root(), "sparse", O_RDWR | O_CREAT, 0600));
  REQUIRE(ftruncate(fd.get(), off_t(1) << 40) == 0);
  REQUIRE(pwrite(fd.get(), "begin", 5, 8192 + 100) == 5);
  REQUIRE(pwrite(fd.get(), "middle", 6, (off_t(1) << 39) + 5) == 6);
  REQUIRE(pwrite(fd.get(), "end", 3, (off_t(1) << 40) - 3) == 3);
  two.scan();
  Rejoin rejoin(two.source, two.target);
  rejoin.dirty.touch_listing(1);
  // It had something where there is a hole.
  SUBCASE("made") {}
  SUBCASE("overwritten") {
    REQUIRE(rejoin.run() == "");
    const Fd there(openat(two.target_root(), "sparse", O_RDWR));
    for (off_t at = 0; at < 8 << 20; at += 4096) REQUIRE(pwrite(there.get(), "old", 3, at) == 3);
    Rejoin again(two.source, two.target);
    again.dirty.touch_data(two.id_of("sparse"), 0, to_the_end);
    REQUIRE(again.run() == "");
    CHECK(again.resync.progress().sent_bytes < 100'000);
  }
  SUBCASE("compared") {
    REQUIRE(rejoin.run() == "");
    const Fd there(openat(two.target_root(), "sparse", O_RDWR));
    for (off_t at = 0; at < 8 << 20; at += 4096) REQUIRE(pwrite(there.get(), "old", 3, at) == 3);
    Rejoin again(two.source, two.target);
    again.dirty.compare_data(two.id_of("sparse"), 0, to_the_end);
    REQUIRE(again.run() == "");
    CHECK(again.resync.progress().read_bytes < 4u << 20);
  }
  if (!rejoin.is_over()) REQUIRE(rejoin.run() == "");
  const Fd copy(openat(two.target_root(), "sparse", O_RDONLY));
  struct stat now;
  REQUIRE(fstat(copy.get(), &now) == 0);
  CHECK(now.st_size == off_t(1) << 40);
  CHECK(now.st_blocks <= 3 * 2 * 4096 / 512);
  char text[8] = "";
  CHECK(pread(copy.get(), text, 5, 8192 + 100) == 5);
  CHECK(std::string(text, 5) == "begin");
  CHECK(pread(copy.get(), text, 8, (off_t(1) << 40) - 3) == 3);
  CHECK(std::string(text, 3) == "end");
}

TEST_CASE("resync: no more travels and is read than what is dirty") {
  if (skipped()) return;
  Two two;
  const std::string content(8u << 20, 'c');
  put(two.root(), "large", content);
  two.scan();
  REQUIRE(first_copy(two) == "");
  const FileId id = two.id_of("large");
  const Fd fd(openat(two.root(), "large", O_RDWR));
  Rejoin rejoin(two.source, two.target);
  for (off_t at = 0; at < 8 << 20; at += 400'000) {
    REQUIRE(pwrite(fd.get(), "changed", 7, at) == 7);
    rejoin.dirty.touch_data(id, uint64_t(at), uint64_t(at) + 7);
  }
  const uint64_t bytes = rejoin.dirty.totals().bytes;
  REQUIRE(rejoin.run() == "");
  const ResyncProgress& progress = rejoin.resync.progress();
  CHECK(progress.read_bytes == bytes);
  CHECK(double(progress.sent_bytes) <= 1.1 * double(bytes));
  CHECK(progress.missing == 0);
  CHECK(compare_trees(two) == "");
  // Known by marks only: compared, and the leaves that differ are sent.
  REQUIRE(pwrite(fd.get(), "again", 5, 3 << 20) == 5);
  Rejoin compared(two.source, two.target);
  compared.dirty.compare_data(id, 0, 4u << 20);
  REQUIRE(compared.run() == "");
  CHECK(compared.resync.progress().sent_bytes < 2 * leaf_size);
  CHECK(compare_trees(two) == "");
}

TEST_CASE("resync: a new file is sent once") {
  if (skipped()) return;
  Two two;
  put(two.root(), "large", std::string(6u << 20, 'c'));
  two.scan();
  Rejoin rejoin(two.source, two.target, 1u << 20);
  rejoin.dirty.touch_listing(1);
  REQUIRE(rejoin.run() == "");
  CHECK(rejoin.resync.progress().sent_bytes < (6u << 20) + (64u << 10));
  CHECK(compare_trees(two) == "");
}

TEST_CASE("resync: a transported copy is adopted; only what differs is sent") {
  if (skipped()) return;
  Two two;
  const std::string content(4u << 20, 'c');
  std::string other = content;
  other[3 << 20] = 'd';
  mkdirat(two.root(), "folder", 0750);
  mkdirat(two.target_root(), "folder", 0700);
  const Fd from(openat(two.root(), "folder", O_RDONLY | O_DIRECTORY));
  const Fd to(openat(two.target_root(), "folder", O_RDONLY | O_DIRECTORY));
  put(from.get(), "same", content);
  put(to.get(), "same", content);
  put(from.get(), "differs", content);
  put(to.get(), "differs", other);
  put(from.get(), "shorter", content);
  put(to.get(), "shorter", content.substr(0, 1000));
  put(from.get(), "longer", "short");
  put(to.get(), "longer", content);
  two.scan();
  Rejoin rejoin(two.source, two.target);
  rejoin.dirty.touch_listing(1);
  REQUIRE(rejoin.run() == "");
  CHECK(compare_trees(two) == "");
  CHECK(rejoin.wire.adopted == 5);
  CHECK(rejoin.resync.progress().sent_bytes < (5u << 20));
}

TEST_CASE("resync: what is not replicated is not stated") {
  if (skipped()) return;
  Two two;
  put(two.root(), "replicated", "r");
  put(two.root(), "local", "l");
  put(two.root(), "unknown", "u");
  mkdirat(two.root(), ".holdfast-quarantine", 0700);
  two.scan();
  const FileId local = two.id_of("local");
  two.source.ids.set_flags(local, id_local, 0);
  two.source.ids.erase(two.id_of("unknown"));
  put(two.target_root(), "local", "theirs");
  two.source.ids.set_flags(two.id_of("replicated"), id_unlinked, 0);
  Rejoin rejoin(two.source, two.target);
  rejoin.dirty.touch_inode(local);
  rejoin.dirty.touch_data(local, 0, to_the_end);
  rejoin.dirty.compare_data(local, 0, to_the_end);
  rejoin.dirty.touch_entry(1, "local");
  rejoin.dirty.touch_entry(1, ".holdfast-quarantine");
  rejoin.dirty.touch_inode(two.id_of("replicated"));
  rejoin.dirty.touch_data(4711, 0, to_the_end);
  rejoin.dirty.touch_listing(4711);
  rejoin.dirty.touch_entry(4711, "name");
  CHECK(rejoin.run() == "");
  CHECK(rejoin.resync.progress().statements == 0);
  CHECK(content_of(two.target_root(), "local") == "theirs");
}

TEST_CASE("resync: a large directory that changes all the time is stated as it is") {
  if (skipped()) return;
  Two two;
  for (int n = 0; n < 1500; n++) put(two.root(), ("f" + std::to_string(n)).c_str(), "");
  two.scan();
  Rejoin rejoin(two.source, two.target);
  rejoin.dirty.touch_listing(1);
  // Links: names that come and go, each with its record, under the directory's lock.
  const FileId file = two.id_of("f0");
  std::thread application([&] {
    for (int n = 0; n < 2000; n++) {
      Locks& locks = *rejoin.locks;
      const std::string name = "f" + std::to_string(n % 1500) + "+";
      while (!rejoin.wire.reserve(1024, Waiter{[](void*, uint64_t, int) {}, nullptr, 0})) {
        std::this_thread::yield();
      }
      const Locks::Hold hold(locks, 1, file);
      const bool made = linkat(two.root(), "f0", two.root(), name.c_str(), 0) == 0;
      if (!made) unlinkat(two.root(), name.c_str(), 0);
      struct stat now;
      fstat(two.root(), &now);
      LinkBody link{
          1, {now.st_mtim.tv_sec, uint32_t(now.st_mtim.tv_nsec), 0}, uint32_t(name.size()), 0};
      UnlinkBody unlink{1, link.parent_mtime, link.name_size, 0};
      const iovec parts[] = {{made ? static_cast<void*>(&link) : &unlink, sizeof link},
                             {const_cast<char*>(name.data()), name.size()}};
      const Lsn lsn = rejoin.wire.append(made ? Kind::link : Kind::unlink, 0, file, parts);
      rejoin.wire.release(1024 - record_size(sizeof link + name.size()));
      locks.changed(1, lsn);
    }
  });
  rejoin.start();
  const std::string said = rejoin.wait();
  application.join();
  CHECK(said == "");
  CHECK(rejoin.finish_all() == "");
  CHECK(compare_trees(two) == "");
}

TEST_CASE("resync: stopped and begun again") {
  if (skipped()) return;
  Two two;
  for (int n = 0; n < 600; n++) put(two.root(), ("f" + std::to_string(n)).c_str(), "data");
  two.scan();
  Rejoin rejoin(two.source, two.target);
  rejoin.dirty.touch_listing(1);
  rejoin.wire.pause(true);
  rejoin.start();
  while (rejoin.resync.progress().statements == 0) std::this_thread::yield();
  CHECK(rejoin.resync.running());
  rejoin.resync.stop();
  CHECK_FALSE(rejoin.resync.running());
  CHECK_FALSE(rejoin.is_over());
  // What is on its way is not lost: the same stream goes on.
  rejoin.wire.pause(false);
  CHECK(rejoin.run() == "");
  CHECK(compare_trees(two) == "");
}

TEST_CASE("resync: a log without room is waited for, and stopping does not wait for it") {
  if (skipped()) return;
  Two two;
  put(two.root(), "file", std::string(1u << 20, 'x'));
  two.scan();
  Rejoin rejoin(two.source, two.target, 300'000);
  rejoin.dirty.touch_listing(1);
  rejoin.wire.pause(true);
  rejoin.start();
  while (rejoin.resync.progress().statements == 0) std::this_thread::yield();
  rejoin.resync.stop();
  rejoin.wire.pause(false);
  CHECK(rejoin.run() == "");
  CHECK(compare_trees(two) == "");
}

TEST_CASE("resync: hostile reports are refused, answers to others are not taken") {
  if (skipped()) return;
  Two two;
  Rejoin rejoin(two.source, two.target);
  const auto report = [&](MissingBody body, const std::string& name) {
    std::vector<uint8_t> bytes(sizeof body + name.size());
    std::memcpy(bytes.data(), &body, sizeof body);
    std::memcpy(bytes.data() + sizeof body, name.data(), name.size());
    return rejoin.resync.missing(bytes);
  };
  CHECK_FALSE(rejoin.resync.missing({}));
  CHECK_FALSE(report({0, 0, 0, 0}, ""));
  CHECK_FALSE(report({20, 1, 3, 0}, "ab"));
  CHECK_FALSE(report({20, 0, 2, 0}, "ab"));
  CHECK_FALSE(report({20, 1, 0, 0}, ""));
  CHECK_FALSE(report({20, 1, 2, 4}, "ab"));
  CHECK_FALSE(report({20, 1, 3, 0}, "a/b"));
  CHECK_FALSE(report({20, 1, 300, 0}, std::string(300, 'n')));
  CHECK(rejoin.dirty.empty());
  CHECK(report({20, 0, 0, 0}, ""));  // no such file here either: nothing to state
  CHECK(rejoin.dirty.empty());
  CHECK(report({20, 1, 2, 0}, "ab"));
  CHECK(rejoin.dirty.totals().names == 1);
  rejoin.dirty.clear();
  CheckResult result{};
  result.kind = uint32_t(Check::data);
  result.file = 20;
  result.run = 99;
  const auto* bytes = reinterpret_cast<const uint8_t*>(&result);
  rejoin.resync.differs({bytes, sizeof result});
  rejoin.resync.differs({bytes, sizeof result - 1});
  CHECK(rejoin.dirty.empty());
}

TEST_CASE("resync: a local failure ends it, and what was not stated stays dirty") {
  if (skipped()) return;
  Two two;
  put(two.root(), "file", "x");
  two.scan();
  Rejoin rejoin(two.source, two.target);
  rejoin.dirty.touch_data(two.id_of("file"), 0, to_the_end);
  // No descriptor is left to open it with.
  rlimit before;
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit none{3, before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
  rejoin.start();
  const std::string said = rejoin.wait();
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(said == "open_by_handle_at: Too many open files");
  CHECK(rejoin.dirty.totals().items == 2);
  CHECK(rejoin.wire.reserved() == 0);
  // Once it can be read it is stated.
  rejoin.dirty.touch_listing(1);
  CHECK(rejoin.run() == "");
  CHECK(compare_trees(two) == "");
}
