#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <memory>
#include <random>
#include <set>
#include <thread>

#include "replica/ids.h"
#include "replica/marks.h"
#include "replica/marks_file.h"
#include "test/replica_world.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

Mark data_mark(FileId file, uint32_t region) {
  return {file, region, uint32_t(MarkWhat::data)};
}
Mark inode_mark(FileId file) {
  return {file, 0, uint32_t(MarkWhat::inode)};
}

bool covers(const Marked& marked, const Mark& mark) {
  if (marked.everything || (marked.first_new != 0 && mark.file >= marked.first_new)) return true;
  return std::ranges::binary_search(marked.marks, mark);
}

/** A state folder with its table of ids and the marks in it; time and the peer are the test's. */
struct Primary {
  explicit Primary(const std::string& path, MarksOptions changes = {}) : folder(path) {
    REQUIRE(ids.open(folder + "/ids").ok());
    // Files that were there before.
    while (ids.allocate(1) < (FileId{1} << 40) + 5000) {
    }
    options = std::move(changes);
    options.tick_ms = 0;
    options.last = [this] { return last.load(); };
    options.sync = [this] {
      syncs++;
      return sync_error;
    };
    marks = std::make_unique<Marks>(ids, options);
    REQUIRE(marks->open(folder).ok());
  }
  void guard(const Mark& mark) {
    Marks::Guard guard;
    REQUIRE(marks->guard(&mark, 1, guard) == 0);
  }
  Marked read() const {
    const auto found = Marks::read(folder);
    REQUIRE(found.ok());
    return found.value;
  }
  uint64_t writes() const { return marks->status().writes; }

  std::string folder;
  Ids ids;
  MarksOptions options;
  std::atomic<Lsn> last{0};
  std::atomic<int> syncs{0};
  int sync_error = 0;
  std::unique_ptr<Marks> marks;
};

constexpr FileId old_file = (FileId{1} << 40) + 100;

}  // namespace

TEST_CASE("marks: a change is on disk when guard returns, and costs nothing the second time") {
  const Scratch folder;
  Primary primary(folder.path);
  CHECK(primary.read().marks.empty());
  CHECK(primary.read().generations == 1);
  Mark marks[] = {inode_mark(old_file), data_mark(old_file, 5)};
  for (int i = 0; i < 3; i++) {
    Marks::Guard guard;
    REQUIRE(primary.marks->guard(marks, 2, guard) == 0);
    CHECK(covers(primary.read(), marks[0]));
    CHECK(covers(primary.read(), marks[1]));
  }
  CHECK_FALSE(covers(primary.read(), data_mark(old_file, 6)));
  const MarksStatus status = primary.marks->status();
  CHECK(status.writes == 1);
  CHECK(status.guarded == 2);
  CHECK(status.marks == 2);
  CHECK_FALSE(status.everything);
}

TEST_CASE("marks: files made since need none") {
  const Scratch folder;
  Primary primary(folder.path);
  const FileId made = primary.ids.allocate(1);
  primary.guard(inode_mark(made));
  primary.guard(data_mark(made, 77));
  CHECK(primary.writes() == 0);
  CHECK(covers(primary.read(), data_mark(made, 77)));
  CHECK_FALSE(covers(primary.read(), inode_mark(old_file)));
  // An epoch's ids are greater than all of an earlier one's.
  CHECK(covers(primary.read(), inode_mark(primary.ids.allocate(2))));
}

TEST_CASE("marks: who writes in sequence waits for one region in eight") {
  const Scratch folder;
  Primary primary(folder.path);
  for (uint32_t region = 0; region < 800; region++) primary.guard(data_mark(old_file, region));
  CHECK(primary.writes() <= 102);
  const Marked found = primary.read();
  for (uint32_t region = 0; region < 800; region++) {
    CHECK(covers(found, data_mark(old_file, region)));
  }
  // All of a file covers each part of it.
  const uint64_t before = primary.writes();
  primary.guard(data_mark(old_file + 1, mark_whole));
  primary.guard(data_mark(old_file + 1, 12345));
  CHECK(primary.writes() == before + 1);
}

TEST_CASE("marks: what a range touches") {
  MarkSet set;
  set.data(50, mark_region - 1, mark_region + 1);
  REQUIRE(set.size() == 2);
  CHECK(set.marks()[0] == data_mark(50, 0));
  CHECK(set.marks()[1] == data_mark(50, 1));
  set.data(50, 7, 7);
  CHECK(set.size() == 2);
  MarkSet exact;
  exact.data(50, mark_region, 2 * mark_region);
  REQUIRE(exact.size() == 1);
  CHECK(exact.marks()[0] == data_mark(50, 1));
  MarkSet much;
  much.inode(50);
  much.data(50, 0, INT64_MAX);
  REQUIRE(much.size() == 2);
  CHECK(much.marks()[1] == data_mark(50, mark_whole));
}

TEST_CASE(
    "marks: an old generation goes when its changes are over, the peer has them, and the "
    "local disk too") {
  const Scratch folder;
  MarksOptions options;
  options.generation_marks = 100;
  Primary primary(folder.path, options);
  const FileId made = primary.ids.allocate(1);
  const Mark mark = inode_mark(old_file);
  Marks::Guard under_way;
  REQUIRE(primary.marks->guard(&mark, 1, under_way) == 0);
  primary.last = 40;
  for (uint32_t i = 1; primary.marks->status().generations < 2; i++) {
    REQUIRE(i < 200);
    primary.guard(inode_mark(old_file + i));
  }
  primary.last = 50;
  // Its change is under way.
  primary.marks->peer_has(50);
  CHECK(primary.marks->settle() == 0);
  CHECK(primary.marks->status().generations == 2);
  CHECK(covers(primary.read(), mark));
  // It appended its record; the peer lacks that.
  primary.last = 51;
  under_way.release();
  CHECK(primary.marks->settle() == 0);
  CHECK(primary.marks->status().generations == 2);
  CHECK(primary.syncs == 0);
  // The peer has it, and the local disk has not.
  primary.marks->peer_has(51);
  primary.sync_error = EIO;
  CHECK(primary.read().since == 0);
  CHECK(primary.marks->settle() == EIO);
  CHECK(primary.syncs == 1);
  CHECK(covers(primary.read(), mark));
  // Alone.
  primary.sync_error = 0;
  primary.marks->keep(true);
  CHECK(primary.marks->settle() == 0);
  CHECK(covers(primary.read(), mark));
  CHECK(covers(primary.read(), inode_mark(made)));
  primary.marks->keep(false);
  CHECK(primary.marks->settle() == 0);
  CHECK_FALSE(covers(primary.read(), mark));
  CHECK(primary.read().since == 40);
  // What was new in it is not new in the next one.
  CHECK_FALSE(covers(primary.read(), inode_mark(made)));
  const uint64_t before = primary.writes();
  primary.guard(inode_mark(made));
  CHECK(primary.writes() == before + 1);
  CHECK(covers(primary.read(), inode_mark(made)));
}

TEST_CASE("marks: alone one generation grows, and the end of it begins a new one") {
  const Scratch folder;
  MarksOptions options;
  options.generation_marks = 64;
  Primary primary(folder.path, options);
  primary.marks->keep(true);
  for (uint32_t i = 0; i < 2000; i++) primary.guard(inode_mark(old_file + i));
  for (uint32_t i = 0; i < 2000; i++) primary.guard(inode_mark(old_file + i));
  CHECK(primary.writes() == 2000);
  CHECK(primary.marks->status().generations == 1);
  CHECK(primary.read().marks.size() == 2000);
  primary.last = 9;
  primary.marks->peer_has(9);
  CHECK(primary.marks->settle() == 0);
  CHECK(primary.read().marks.size() == 2000);
  primary.marks->keep(false);
  CHECK(primary.marks->settle() == 0);
  CHECK(primary.read().marks.empty());
  CHECK(primary.marks->status().generations == 1);
}

TEST_CASE("marks: a generation that covers something is followed when it is old") {
  const Scratch folder;
  MarksOptions options;
  options.generation_ms = 0;
  Primary primary(folder.path, options);
  primary.marks->settle();
  CHECK(list_marks(folder.path).value == std::vector<uint64_t>{1});
  primary.guard(inode_mark(old_file));
  primary.marks->settle();
  CHECK(primary.read().marks.empty());
  CHECK(list_marks(folder.path).value == std::vector<uint64_t>{2});
  // Files that were made and needed no mark count too.
  primary.guard(inode_mark(primary.ids.allocate(1)));
  primary.marks->settle();
  CHECK(list_marks(folder.path).value == std::vector<uint64_t>{3});
}

TEST_CASE("marks: too many are everything, until the peer has it all again") {
  const Scratch folder;
  MarksOptions options;
  options.generation_marks = 64;
  options.max_marks = 500;
  Primary primary(folder.path, options);
  primary.marks->keep(true);
  for (uint32_t i = 0; i < 1000; i++) {
    primary.guard(inode_mark(old_file + i));
    if (i % 100 == 0) CHECK(covers(primary.read(), inode_mark(old_file + i)));
  }
  CHECK(primary.read().everything);
  CHECK(primary.marks->status().everything);
  CHECK(primary.writes() < 502);
  primary.marks->settle();
  CHECK(primary.read().everything);
  primary.marks->keep(false);
  primary.marks->settle();
  CHECK_FALSE(primary.read().everything);
  CHECK_FALSE(primary.marks->status().everything);
  primary.guard(inode_mark(old_file));
  CHECK(covers(primary.read(), inode_mark(old_file)));
  CHECK_FALSE(primary.read().everything);
}

TEST_CASE("marks: where a new generation cannot be made everything is marked, later it is") {
  const Scratch folder;
  MarksOptions options;
  options.generation_marks = 64;
  Primary primary(folder.path, options);
  mkdir(folder.at("marks-2.new").c_str(), 0755);
  for (uint32_t i = 0; i < 100; i++) primary.guard(inode_mark(old_file + i));
  CHECK(primary.read().everything);
  rmdir(folder.at("marks-2.new").c_str());
  CHECK(primary.marks->settle() == 0);
  CHECK_FALSE(primary.read().everything);
}

TEST_CASE("marks: an earlier process's go with the first generation of the next one") {
  const Scratch folder;
  const Mark mark = inode_mark(old_file);
  {
    Primary primary(folder.path);
    primary.guard(mark);
  }
  MarksOptions options;
  options.generation_marks = 64;
  Primary primary(folder.path, options);
  CHECK(primary.marks->status().generations == 2);
  CHECK(primary.marks->status().marks == 1);
  primary.marks->peer_has(1000);
  primary.marks->settle();
  CHECK(covers(primary.read(), mark));
  for (uint32_t i = 1; i < 100; i++) primary.guard(inode_mark(old_file + i));
  primary.marks->settle();
  CHECK_FALSE(covers(primary.read(), mark));
  CHECK(primary.marks->status().generations == 1);
}

TEST_CASE("marks: damage is everything, for the next process too") {
  const Scratch folder;
  {
    Primary primary(folder.path);
    primary.guard(inode_mark(old_file));
  }
  Bytes bytes = bytes_of(folder.at("marks-1"));
  bytes[60] ^= 1;
  put_bytes(folder.at("marks-1"), bytes);
  CHECK(Marks::read(folder.path).value.everything);
  Primary primary(folder.path);
  CHECK(primary.read().everything);
  CHECK_FALSE(primary.marks->status().everything);
  CHECK(primary.marks->clear() == 0);
  CHECK(primary.read().generations == 0);
}

TEST_CASE("marks: an orderly end leaves none, and nothing is guarded after it") {
  const Scratch folder;
  CHECK(Marks::read(folder.at("none")).value.generations == 0);
  CHECK(Marks::remove(folder.at("none")) == 0);
  Primary primary(folder.path);
  primary.guard(inode_mark(old_file));
  CHECK(primary.marks->clear() == 0);
  const Marked found = primary.read();
  CHECK(found.generations == 0);
  CHECK(found.marks.empty());
  CHECK_FALSE(found.everything);
  const Mark mark = inode_mark(old_file);
  Marks::Guard guard;
  CHECK(primary.marks->guard(&mark, 1, guard) == ENODEV);
  CHECK(primary.marks->clear() == 0);
}

TEST_CASE("marks: a failing disk fails the guard") {
  const Scratch folder;
  Primary primary(folder.path);
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit small{0, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const Mark mark = inode_mark(old_file);
  Marks::Guard guard;
  const int error = primary.marks->guard(&mark, 1, guard);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(error == EFBIG);
  CHECK(primary.marks->guard(&mark, 1, guard) == 0);
  CHECK(covers(primary.read(), mark));
}

namespace {

constexpr size_t noted_max = 4000;

/** What a process that is killed had changed, in memory that outlives it. */
struct Noted {
  std::atomic<size_t> count;
  Mark marks[noted_max];
};

/** Guards and changes until it is killed: after `kill_at` changes, or during one. */
[[noreturn]] void live(const std::string& folder, Noted& noted, uint32_t seed, size_t kill_at,
                       const Faults* faults) {
  MarksOptions options;
  options.generation_marks = 64 + seed % 100;
  options.faults = faults;
  Primary primary(folder, options);
  std::mt19937 random(seed);
  for (size_t i = 0; i < noted_max; i++) {
    const Mark mark = random() % 3 == 0
                          ? inode_mark(primary.ids.allocate(1))
                          : data_mark(old_file + random() % 50, uint32_t(random() % 20));
    Marks::Guard guard;
    if (primary.marks->guard(&mark, 1, guard) != 0) _exit(1);
    // The change: from here on it may be on the disk.
    noted.marks[i] = mark;
    noted.count = i + 1;
    if (i >= kill_at) raise(SIGKILL);
    primary.last++;
    guard.release();
    if (random() % 50 == 0) primary.marks->settle();
  }
  _exit(1);
}

/** Changes of killed processes that no mark covers, in `runs` runs. The peer has nothing. */
size_t uncovered(int runs, const Faults* faults) {
  size_t lost = 0;
  void* memory =
      mmap(nullptr, sizeof(Noted), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  auto& noted = *static_cast<Noted*>(memory);
  for (int run = 0; run < runs; run++) {
    const Scratch folder;
    noted.count = 0;
    const pid_t child = fork();
    if (child == 0) live(folder.path, noted, uint32_t(run), size_t(run * 7), faults);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    const auto found = Marks::read(folder.path);
    REQUIRE(found.ok());
    REQUIRE(noted.count > 0);
    for (size_t i = 0; i < noted.count; i++) {
      if (!covers(found.value, noted.marks[i])) lost++;
    }
    CHECK_FALSE(found.value.everything);
  }
  munmap(memory, sizeof(Noted));
  return lost;
}

}  // namespace

TEST_CASE("marks: whatever a killed primary changed is marked") {
  CHECK(uncovered(60, nullptr) == 0);
}

TEST_CASE("marks: a mark after the write is found out") {
  Faults faults;
  faults.mark_after_write = true;
  CHECK(uncovered(5, &faults) > 0);
}

TEST_CASE("marks: threads that wait together share writes, while generations come and go") {
  const Scratch folder;
  MarksOptions options;
  options.generation_marks = 200;
  Primary primary(folder.path, options);
  constexpr size_t thread_count = 8;
  std::atomic<size_t> running{thread_count};
  std::atomic<int> wrong{0};
  std::atomic<uint64_t> guards{0};
  std::vector<std::thread> threads;
  for (size_t id = 0; id < thread_count; id++) {
    threads.emplace_back([&, id] {
      std::mt19937 random(static_cast<uint32_t>(id));
      for (int i = 0; i < 400; i++) {
        MarkSet set;
        const FileId file = random() % 4 == 0 ? primary.ids.allocate(1) : old_file + random() % 300;
        set.inode(file);
        set.data(file, random() % (40 * mark_region), 41 * mark_region);
        Marks::Guard guard;
        if (primary.marks->guard(set, guard) != 0) wrong++;
        guards++;
        if (i % 100 == 0) {
          // While it is held nothing that covers it goes.
          const Marked found = Marks::read(folder.path).value;
          for (size_t at = 0; at < set.size(); at++) {
            const Mark& mark = set.marks()[at];
            if (!covers(found, mark) && !covers(found, data_mark(file, mark_whole))) wrong++;
          }
        }
        primary.marks->peer_has(++primary.last);
      }
      running--;
    });
  }
  std::thread settler([&] {
    while (running > 0) {
      primary.marks->keep(false);
      if (primary.marks->settle() != 0) wrong++;
    }
  });
  for (std::thread& thread : threads) thread.join();
  settler.join();
  CHECK(wrong == 0);
  const MarksStatus status = primary.marks->status();
  CHECK(status.writes < guards);
  CHECK_FALSE(status.everything);
  primary.marks->peer_has(primary.last);
  primary.marks->settle();
  CHECK(primary.marks->status().generations == 1);
}

TEST_CASE("marks: what a guarded write costs, when its marks are there") {
  const Scratch folder;
  Primary primary(folder.path);
  MarkSet set;
  set.inode(old_file);
  set.data(old_file, 4096, 8192);
  {
    Marks::Guard guard;
    REQUIRE(primary.marks->guard(set, guard) == 0);
  }
  constexpr int rounds = 200'000;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < rounds; i++) {
    Marks::Guard guard;
    REQUIRE(primary.marks->guard(set, guard) == 0);
  }
  const auto time = std::chrono::steady_clock::now() - begin;
  MESSAGE("a guard: " << double(time.count()) / rounds << " ns");
  CHECK(primary.writes() == 1);
}
