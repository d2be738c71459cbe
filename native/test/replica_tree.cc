#include <doctest/doctest.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include <atomic>
#include <thread>

#include "replica/scan.h"
#include "replica/tree.h"
#include "test/replica_scratch.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

struct World {
  Scratch scratch;
  Ids ids;
  Tree tree{ids, 16};
  Fd root;

  explicit World(const char* base = "/dev/shm") : scratch(base) {
    REQUIRE(ids.open(scratch.at("ids")).ok());
    const Result<uint8_t> added = tree.add_volume(scratch.folder("tree"));
    CHECK(added.error == 0);
    REQUIRE(added.ok());
    root = scratch.folder("tree");
  }
  FileId know(const char* name) {
    IdEntry entry;
    struct stat attributes;
    REQUIRE(tree.identify(tree.root_fd(0), name, entry.handle, attributes) == 0);
    entry.id = ids.allocate(1);
    entry.type = attributes.st_mode & S_IFMT;
    REQUIRE(ids.put(entry) == 0);
    return entry.id;
  }
};

ino_t inode_of(int fd) {
  struct stat attributes;
  REQUIRE(fstatat(fd, "", &attributes, AT_EMPTY_PATH) == 0);
  return attributes.st_ino;
}

}  // namespace

TEST_CASE("tree: files of every type are reached by id, whatever they are called by now") {
  if (!is_root()) {
    MESSAGE("skipped: file handles need root");
    return;
  }
  World world;
  const int root = world.root.get();
  REQUIRE(mkdirat(root, "folder", 0755) == 0);
  REQUIRE(symlinkat("nowhere", root, "link") == 0);
  REQUIRE(mknodat(root, "fifo", S_IFIFO | 0600, 0) == 0);
  REQUIRE(mknodat(root, "null", S_IFCHR | 0600, 0x103) == 0);
  const Fd plain(openat(root, "plain", O_CREAT | O_RDWR, 0));
  for (const char* name : {"folder", "link", "fifo", "null", "plain"}) {
    struct stat attributes;
    REQUIRE(fstatat(root, name, &attributes, AT_SYMLINK_NOFOLLOW) == 0);
    const FileId id = world.know(name);
    const std::string other = std::string(name) + ".moved";
    REQUIRE(renameat(root, name, root, other.c_str()) == 0);
    const Result<FileRef> file = world.tree.open(id);
    REQUIRE(file.ok());
    CHECK(file.value->type == (attributes.st_mode & S_IFMT));
    CHECK(file.value->writable == S_ISREG(attributes.st_mode));
    CHECK(inode_of(file.value->fd.get()) == attributes.st_ino);
    CHECK(world.tree.open(id).value == file.value);
  }
  CHECK(inode_of(world.tree.open(1).value->fd.get()) == inode_of(root));
  CHECK(world.tree.open(999).error == ESTALE);
  CHECK(world.tree.sync_all() == 0);
}

TEST_CASE("tree: a file that is gone is ESTALE once nobody holds it") {
  if (!is_root()) {
    MESSAGE("skipped: file handles need root");
    return;
  }
  World world;
  REQUIRE(Fd(openat(world.root.get(), "a", O_CREAT | O_RDWR, 0600)).valid());
  const FileId id = world.know("a");
  FileRef held = world.tree.open(id).value;
  REQUIRE(unlinkat(world.root.get(), "a", 0) == 0);
  CHECK(world.tree.open(id).value == held);
  world.tree.drop(id);
  held.reset();
  CHECK(world.tree.open(id).error == ESTALE);
}

TEST_CASE("tree: a file that is gone is ESTALE also while its inode number is being used again") {
  if (!is_root()) {
    MESSAGE("skipped: file handles need root");
    return;
  }
  World world("/var/tmp");
  struct statfs where;
  REQUIRE(fstatfs(world.root.get(), &where) == 0);
  if (where.f_type != EXT4_SUPER_MAGIC) MESSAGE("/var/tmp is no ext4, which says ENOMEM then");
  REQUIRE(Fd(openat(world.root.get(), "a", O_CREAT | O_RDWR, 0600)).valid());
  const FileId id = world.know("a");
  REQUIRE(unlinkat(world.root.get(), "a", 0) == 0);
  std::atomic<int> made{0};
  std::thread maker([&] {
    for (; made < 20'000; made++) {
      Fd(openat(world.root.get(), "b", O_CREAT | O_RDWR, 0600)).reset();
      unlinkat(world.root.get(), "b", 0);
    }
  });
  int other = 0;
  while (made < 20'000) other += world.tree.open(id).error == ESTALE ? 0 : 1;
  maker.join();
  CHECK(other == 0);
}

TEST_CASE("tree: at most so many descriptors stay open") {
  if (!is_root()) {
    MESSAGE("skipped: file handles need root");
    return;
  }
  World world;
  std::vector<std::weak_ptr<OpenFile>> seen;
  for (int i = 0; i < 200; i++) {
    const std::string name = "f" + std::to_string(i);
    REQUIRE(Fd(openat(world.root.get(), name.c_str(), O_CREAT | O_RDWR, 0600)).valid());
    const Result<FileRef> file = world.tree.open(world.know(name.c_str()));
    REQUIRE(file.ok());
    seen.push_back(file.value);
  }
  int open = 0;
  for (const auto& file : seen) open += file.expired() ? 0 : 1;
  CHECK(open <= 16);
  CHECK(open > 0);
}

TEST_CASE("scan: whether a file is replicated is what its name says") {
  if (!is_root()) {
    MESSAGE("skipped: file handles need root");
    return;
  }
  World world;
  const int root = world.root.get();
  for (const char* name : {"kept", "kept.new", "early", "late.new", "folder/x", "tmp/x"}) {
    const std::string path(name);
    if (const size_t slash = path.find('/'); slash != path.npos) {
      REQUIRE(mkdirat(root, path.substr(0, slash).c_str(), 0755) == 0);
    }
    const Fd made(openat(root, name, O_CREAT | O_RDWR, 0600));
    REQUIRE(made.valid());
  }
  // Killed between the name and what it says: linked out of O_TMPFILE, and moved to a local name.
  const FileId early = world.know("early");
  world.ids.set_flags(early, id_local | id_unlinked, 0);
  const FileId late = world.know("late.new");
  Skip skip;
  REQUIRE(skip.add(".*\\.new") == 0);
  REQUIRE(skip.add("=tmp") == 0);
  const auto made = scan_ids(world.tree, world.ids, 2, skip);
  REQUIRE(made.ok());
  CHECK(made.value == 6);
  const auto flags_of = [&](const char* name) {
    IdEntry entry;
    struct stat attributes;
    REQUIRE(world.tree.identify(root, name, entry.handle, attributes) == 0);
    REQUIRE(world.ids.get(world.ids.find(0, entry.handle), entry));
    return entry.flags;
  };
  for (const char* name : {"kept", "early", "folder", "folder/x"}) CHECK(flags_of(name) == 0);
  for (const char* name : {"kept.new", "late.new", "tmp", "tmp/x"}) {
    CHECK(flags_of(name) == id_local);
  }
  IdEntry entry;
  CHECK((world.ids.get(early, entry) && world.ids.get(late, entry)));
}
