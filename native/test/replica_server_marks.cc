// The file system server and the marks: what a record says was marked before it was.

#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include <algorithm>
#include <thread>

#include "replica/marks.h"
#include "replica/marks_file.h"
#include "test/replica_server_world.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

constexpr uint64_t mib = mark_region;

/** A mounted directory with marks; each record is held against what is on disk at that moment. */
struct MarkedWorld {
  explicit MarkedWorld(const Faults* faults = nullptr) {
    MarksOptions options;
    options.tick_ms = 0;
    options.generation_ms = 0;
    options.faults = faults;
    options.last = [this] { return w.log->last(); };
    marks = std::make_unique<Marks>(*w.ids, options);
    REQUIRE(marks->open(w.base).ok());
    w.log->on_append = [this](const Kept& record) { check(record); };
    w.options.marks = marks.get();
    w.options.skip = {"=local"};
    w.mount();
  }
  ~MarkedWorld() {
    w.server->stop(true);
    w.server.reset();
  }
  /** What was made so far needs marks from here on. */
  void age() {
    marks->peer_has(w.log->last());
    // A guard is given back after the answer.
    for (int i = 0; i == 0 || !read().marks.empty(); i++) {
      REQUIRE(i < 1000);
      REQUIRE(marks->settle() == 0);
      std::this_thread::yield();
    }
    records = 0;
    uncovered = 0;
  }
  Marked read() const { return Marks::read(w.base).value; }
  bool has(MarkWhat what, FileId file, uint32_t region = 0) const {
    const Marked found = read();
    if (file >= found.first_new) return true;
    const auto in = [&](uint32_t number) {
      return std::ranges::binary_search(found.marks, Mark{file, number, uint32_t(what)});
    };
    return in(region) || (what == MarkWhat::data && in(mark_whole));
  }
  bool has_data(FileId file, uint64_t from, uint64_t to) const {
    for (uint64_t at = from / mib; at * mib < to; at++) {
      if (!has(MarkWhat::data, file, uint32_t(at))) return false;
    }
    return true;
  }
  FileId id_of(const std::string& name) const {
    struct stat now {};
    Handle handle;
    if (w.tree->identify(w.under.get(), name.c_str(), handle, now) != 0) return 0;
    return w.ids->find(0, handle);
  }
  void check(const Kept& record) {
    records++;
    const bool last = (record.flags & flag_last_name) != 0;
    bool good = false;
    switch (record.kind) {
      case Kind::write: {
        const auto body = record.body<WriteBody>();
        const uint64_t size = record.size - sizeof body;
        good = has(MarkWhat::inode, record.file) &&
               has_data(record.file, body.offset, body.offset + size);
        break;
      }
      case Kind::allocate: {
        const auto body = record.body<AllocateBody>();
        good = has(MarkWhat::inode, record.file) &&
               (body.mode == 0 || has_data(record.file, body.offset, body.offset + body.length));
        break;
      }
      case Kind::create:
        good = has(MarkWhat::names, record.body<CreateBody>().parent) &&
               has(MarkWhat::inode, record.file);
        break;
      case Kind::link:
        good = has(MarkWhat::names, record.body<LinkBody>().parent) &&
               has(MarkWhat::inode, record.file);
        break;
      case Kind::unlink:
        good = has(MarkWhat::names, record.body<UnlinkBody>().parent) &&
               (last || has(MarkWhat::inode, record.file));
        break;
      case Kind::rename: {
        const auto body = record.body<RenameBody>();
        good = has(MarkWhat::names, body.parent) && has(MarkWhat::names, body.new_parent) &&
               (last || body.exchange != 0 || body.replaced == 0 ||
                has(MarkWhat::inode, body.replaced));
        break;
      }
      default:
        good = has(MarkWhat::inode, record.file);
    }
    if (!good) uncovered++;
  }

  World w;
  std::unique_ptr<Marks> marks;
  std::atomic<int> records{0};
  std::atomic<int> uncovered{0};
};

Fd open_file(const std::string& path, int flags) {
  return Fd(open(path.c_str(), flags | O_CLOEXEC, 0644));
}

/** Every kind of change, each to something that needs a mark of its own. */
void change_everything(MarkedWorld& m) {
  World& w = m.w;
  {
    const Fd fd = open_file(w.path("f"), O_RDWR);
    REQUIRE(pwrite(fd.get(), "x", 1, 5 * mib) == 1);
    REQUIRE(pwrite(fd.get(), "xy", 2, 8 * mib - 1) == 2);
    REQUIRE(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, mib, 3 * mib) == 0);
    REQUIRE(fallocate(fd.get(), 0, 9 * mib, mib) == 0);
  }
  REQUIRE(chmod(w.path("a").c_str(), 0600) == 0);
  REQUIRE(setxattr(w.path("b").c_str(), "user.k", "v", 1, 0) == 0);
  REQUIRE(removexattr(w.path("b").c_str(), "user.k") == 0);
  REQUIRE(link(w.path("c").c_str(), w.path("d/c2").c_str()) == 0);
  REQUIRE(unlink(w.path("d/c2").c_str()) == 0);
  REQUIRE(rename(w.path("e").c_str(), w.path("g/e").c_str()) == 0);
  REQUIRE(rename(w.path("h").c_str(), w.path("i1").c_str()) == 0);
  REQUIRE(syscall(SYS_renameat2, AT_FDCWD, w.path("i1").c_str(), AT_FDCWD, w.path("a").c_str(),
                  RENAME_EXCHANGE) == 0);
  REQUIRE(mkdir(w.path("j/k").c_str(), 0755) == 0);
  REQUIRE(rmdir(w.path("j/k").c_str()) == 0);
  REQUIRE(symlink("a", w.path("j/s").c_str()) == 0);
  const timespec times[2] = {{1, 0}, {2, 0}};
  REQUIRE(utimensat(AT_FDCWD, w.path("d").c_str(), times, 0) == 0);
}

void make_files(MarkedWorld& m) {
  World& w = m.w;
  for (const char* name : {"a", "b", "c", "e", "f", "h", "i1", "t", "u"}) {
    const Fd fd = open_file(w.path(name), O_CREAT | O_RDWR);
    REQUIRE(fd.valid());
  }
  for (const char* name : {"d", "g", "j", "local"}) {
    REQUIRE(mkdir(w.path(name).c_str(), 0755) == 0);
  }
  REQUIRE(link(w.path("i1").c_str(), w.path("i2").c_str()) == 0);
  REQUIRE(truncate(w.path("t").c_str(), 20 * mib) == 0);
  const Fd fd = open_file(w.path("local/x"), O_CREAT | O_RDWR);
  REQUIRE(fd.valid());
}

}  // namespace

TEST_CASE("what a change touches is marked on disk before its record is made") {
  if (!is_root()) return;
  MarkedWorld m;
  make_files(m);
  CHECK(m.records > 0);
  CHECK(m.uncovered == 0);
  m.age();
  change_everything(m);
  CHECK(m.records >= 16);
  CHECK(m.uncovered == 0);
  CHECK(eventually([&] { return m.w.log->balanced(); }));
  CHECK(m.w.log->failures() == 0);
  // Nobody holds a generation any more: it goes.
  m.age();
  CHECK(m.read().generations == 1);
}

TEST_CASE("a mark after the write is found out, by every kind of change") {
  if (!is_root()) return;
  Faults faults;
  faults.mark_after_write = true;
  MarkedWorld m(&faults);
  make_files(m);
  m.age();
  change_everything(m);
  CHECK(m.records >= 16);
  CHECK(m.uncovered == m.records.load());
}

TEST_CASE("what is cut off is marked, and no more than the whole file") {
  if (!is_root()) return;
  MarkedWorld m;
  make_files(m);
  const FileId id = m.id_of("t");
  m.age();
  REQUIRE(truncate(m.w.path("t").c_str(), 18 * mib + 1) == 0);
  CHECK(m.has_data(id, 18 * mib, 20 * mib));
  CHECK_FALSE(m.has(MarkWhat::data, id, 17));
  { REQUIRE(open_file(m.w.path("t"), O_TRUNC | O_RDWR).valid()); }
  CHECK(m.has_data(id, 0, 20 * mib));
  REQUIRE(truncate(m.w.path("t").c_str(), 1000 * mib) == 0);
  CHECK_FALSE(m.has(MarkWhat::data, id, 21));
  REQUIRE(truncate(m.w.path("t").c_str(), 0) == 0);
  CHECK(m.has(MarkWhat::data, id, 999));
}

TEST_CASE("a file without a name is marked as long as a crash may bring its name back") {
  if (!is_root()) return;
  MarkedWorld m;
  make_files(m);
  const FileId id = m.id_of("u");
  m.age();
  const Fd fd = open_file(m.w.path("u"), O_RDWR);
  REQUIRE(unlink(m.w.path("u").c_str()) == 0);
  m.age();
  REQUIRE(pwrite(fd.get(), "x", 1, 3 * mib) == 1);
  CHECK(m.records == 0);
  CHECK(m.has(MarkWhat::data, id, 3));
}

TEST_CASE("what is not replicated is not marked, until it goes from one side to the other") {
  if (!is_root()) return;
  MarkedWorld m;
  make_files(m);
  const FileId inside = m.id_of("local/x");
  const FileId outside = m.id_of("a");
  m.age();
  {
    const Fd fd = open_file(m.w.path("local/x"), O_RDWR);
    REQUIRE(pwrite(fd.get(), "x", 1, 3 * mib) == 1);
    const Fd made = open_file(m.w.path("local/y"), O_RDWR | O_CREAT);
    REQUIRE(made.valid());
  }
  CHECK(m.read().marks.empty());
  REQUIRE(rename(m.w.path("local/x").c_str(), m.w.path("x").c_str()) == 0);
  CHECK(m.has(MarkWhat::data, inside, 3));
  REQUIRE(rename(m.w.path("a").c_str(), m.w.path("local/a").c_str()) == 0);
  CHECK(m.has(MarkWhat::data, outside, 7));
  CHECK(m.uncovered == 0);
}

TEST_CASE("where marks cannot be written nothing is changed") {
  if (!is_root()) return;
  MarkedWorld m;
  make_files(m);
  m.age();
  REQUIRE(m.marks->clear() == 0);
  CHECK((chmod(m.w.path("a").c_str(), 0600) == -1 && errno == EIO));
  CHECK((mkdir(m.w.path("new").c_str(), 0755) == -1 && errno == EIO));
  CHECK((unlink(m.w.path("b").c_str()) == -1 && errno == EIO));
  CHECK((rename(m.w.path("b").c_str(), m.w.path("c").c_str()) == -1 && errno == EIO));
  CHECK((truncate(m.w.path("t").c_str(), 0) == -1 && errno == EIO));
  {
    const Fd fd = open_file(m.w.path("a"), O_RDWR);
    CHECK((pwrite(fd.get(), "x", 1, 0) == -1 && errno == EIO));
  }
  struct stat now {};
  REQUIRE(fstatat(m.w.under.get(), "a", &now, 0) == 0);
  CHECK((now.st_mode & 0777) == 0644);
  CHECK(now.st_size == 0);
  CHECK(fstatat(m.w.under.get(), "b", &now, 0) == 0);
  CHECK(fstatat(m.w.under.get(), "new", &now, 0) == -1);
  CHECK(m.records == 0);
  CHECK(m.w.log->failures() >= 6);
  CHECK(eventually([&] { return m.w.log->balanced(); }));
}
