#include <doctest/doctest.h>
#include <sys/xattr.h>

#include <thread>

#include "replica/locks.h"
#include "replica/log.h"
#include "replica/verify.h"
#include "test/replica_copy.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

/** Keeps what is appended; has room for so many records. */
struct Collector final : Log {
  explicit Collector(const Tail& after) : tail(after) {}

  bool reserve(size_t size, const Waiter& ready) override {
    if (room == 0) {
      waiter = ready;
      return false;
    }
    room--;
    reserved += size;
    return true;
  }
  void release(size_t size) override { reserved -= size; }
  Lsn append(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload) override {
    RecordHead head{};
    head.kind = static_cast<uint16_t>(kind);
    head.flags = flags;
    head.file = file;
    measure_payload(payload, head);
    const size_t at = bytes.size();
    bytes.resize(at + record_size(head.payload_size));
    reserved -= record_size(head.payload_size);
    write_record(bytes.data() + at, head, payload, tail, 1);
    return tail.lsn;
  }
  Lsn last() const override { return tail.lsn; }
  void push() override {}
  bool sync(Lsn, const Waiter&) override { return true; }
  bool strict() const override { return false; }
  bool receipt(Lsn, const Waiter&) override { return true; }
  bool peer_space(uint32_t, uint64_t&, uint64_t&, uint32_t&, uint64_t&, uint64_t&) override {
    return false;
  }
  void local_failed(int, const char*) override {}

  std::vector<uint8_t> bytes;
  Tail tail;
  size_t reserved = 0;
  size_t room = SIZE_MAX;
  Waiter waiter;
};

/** Two servers after the same history. */
struct Pair {
  explicit Pair(uint64_t seed) : history(seed, {}), first(history), second(history) {
    for (int n = 0; n < 60; n++) history.step();
    REQUIRE(apply(here, history, 0, history.size(), false) == "");
    REQUIRE(apply(there, history, 0, history.size(), false) == "");
  }
  int verify(Collector& log) {
    VerifyProgress progress;
    return run_verify(here.tree, here.ids, locks, log, {}, progress, 1000);
  }
  /** What the secondary finds; the last is the end. */
  std::vector<CheckResult> answer(const Collector& log) {
    Sink sink;
    Applier applier(there.tree, there.ids, {}, sink);
    REQUIRE(applier.start({}, ApplyMode::normal) == 0);
    Batch batch;
    batch.records = log.bytes;
    applier.submit(batch);
    CHECK(applier.drain());
    applier.stop();
    return sink.results;
  }
  std::vector<CheckResult> compared() {
    Collector log(history.tail);
    CHECK(verify(log) == 0);
    CHECK(log.reserved == 0);
    return answer(log);
  }
  FileId any(bool (*want)(const Node&)) const {
    for (const auto& [id, node] : history.nodes) {
      if (id > max_root && want(node)) return id;
    }
    return 0;
  }

  History history;
  Copy first, second;
  Life here{first}, there{second};
  std::unique_ptr<Locks> owned = std::make_unique<Locks>();
  Locks& locks = *owned;
};

constexpr auto end_kind = static_cast<uint32_t>(Check::end);

}  // namespace

TEST_CASE("verify: equal copies are equal, and the end says so") {
  if (skipped()) return;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    Pair pair(seed);
    const std::vector<CheckResult> results = pair.compared();
    REQUIRE_MESSAGE(results.size() == 1, "seed " << seed);
    CHECK(results[0].kind == end_kind);
    CHECK(results[0].differences == 0);
  }
}

TEST_CASE("verify: each kind of difference is found, where it is") {
  if (skipped()) return;
  uint64_t seed = 1;
  const auto is_file = [](const Node& n) { return n.type() == S_IFREG && n.content.size() > 10; };
  while (Pair(seed).any(is_file) == 0) seed++;
  Pair pair(seed);
  const FileId file = pair.any(is_file);
  const FileRef open = pair.there.tree.open(file).value;
  REQUIRE(open != nullptr);
  const int fd = open->fd.get();
  Check expected = Check::data;
  FileId where = file;
  SUBCASE("a byte") {
    struct stat now;
    REQUIRE(fstat(fd, &now) == 0);
    char byte = 0;
    REQUIRE(pread(fd, &byte, 1, 5) == 1);
    byte ^= 1;
    REQUIRE(pwrite(fd, &byte, 1, 5) == 1);
    const timespec times[2] = {now.st_atim, now.st_mtim};
    REQUIRE(futimens(fd, times) == 0);
  }
  SUBCASE("the mode") {
    struct stat now;
    REQUIRE(fstat(fd, &now) == 0);
    REQUIRE(fchmod(fd, (now.st_mode & 07777) ^ 1) == 0);
    expected = Check::attributes;
  }
  SUBCASE("an xattr") {
    REQUIRE(fsetxattr(fd, "trusted.more", "x", 1, 0) == 0);
    expected = Check::attributes;
  }
  SUBCASE("a name") {
    const Node& node = pair.history.nodes.at(1);
    REQUIRE_FALSE(node.names.empty());
    REQUIRE(renameat(pair.there.tree.root_fd(0), node.names.begin()->first.c_str(),
                     pair.there.tree.root_fd(0), "other name") == 0);
    expected = Check::entries;
    where = 1;
  }
  const std::vector<CheckResult> results = pair.compared();
  REQUIRE(results.size() >= 2);
  CHECK(results.back().kind == end_kind);
  CHECK(results.back().differences == results.size() - 1);
  CHECK(results[0].kind == static_cast<uint32_t>(expected));
  CHECK(results[0].file == where);
  CHECK(results[0].error == 0);
}

TEST_CASE("verify: large files are compared in pieces, sizes too") {
  if (skipped()) return;
  Pair pair(3);
  const FileId id = pair.any([](const Node& n) { return n.type() == S_IFREG; });
  REQUIRE(id != 0);
  const std::string data(3 * leaves_per_check * leaf_size + 1234, 'x');
  for (Life* life : {&pair.here, &pair.there}) {
    const FileRef open = life->tree.open(id).value;
    REQUIRE(pwrite(open->fd.get(), data.data(), data.size(), 0) == ssize_t(data.size()));
    const timespec times[2] = {{7, 0}, {7, 0}};
    REQUIRE(futimens(open->fd.get(), times) == 0);
  }
  CHECK(pair.compared().size() == 1);
  const int fd = pair.there.tree.open(id).value->fd.get();
  const uint64_t at = 2 * leaves_per_check * leaf_size + 5 * leaf_size + 77;
  REQUIRE(pwrite(fd, "y", 1, off_t(at)) == 1);
  bool found = false;
  for (const CheckResult& result : pair.compared()) {
    if (result.kind != static_cast<uint32_t>(Check::data)) continue;
    found = true;
    CHECK(result.file == id);
    CHECK(result.offset == at - 77);
  }
  CHECK(found);
}

TEST_CASE("verify: a log without room is waited for, and then given up") {
  if (skipped()) return;
  Pair pair(5);
  Collector log(pair.history.tail);
  log.room = 3;
  VerifyProgress progress;
  CHECK(run_verify(pair.here.tree, pair.here.ids, pair.locks, log, {}, progress, 1) == ENOSPC);
  CHECK(log.reserved == 0);
  if (log.waiter.done != nullptr) log.waiter.done(log.waiter.context, 0, 0);
  progress.stop = true;
  log.room = SIZE_MAX;
  CHECK(run_verify(pair.here.tree, pair.here.ids, pair.locks, log, {}, progress, 1) == ECANCELED);
}

TEST_CASE("verify: hostile check bodies are refused") {
  const CheckBody good{static_cast<uint32_t>(Check::data), 1, 1, 0, 10};
  std::vector<uint8_t> bytes(sizeof(CheckBody) + sizeof(Hash));
  CheckBody body;
  std::span<const uint8_t> hashes;
  const auto parse = [&](CheckBody with, size_t size) {
    std::memcpy(bytes.data(), &with, sizeof with);
    return parse_check(std::span<const uint8_t>(bytes).subspan(0, size), body, hashes);
  };
  CHECK(parse(good, bytes.size()));
  CHECK(hashes.size() == sizeof(Hash));
  CHECK_FALSE(parse(good, bytes.size() - 1));
  CHECK_FALSE(parse(good, 10));
  CheckBody bad = good;
  bad.count = 0x10000001;
  CHECK_FALSE(parse(bad, bytes.size()));
  bad = good;
  bad.offset = 1;
  CHECK_FALSE(parse(bad, bytes.size()));
  bad = good;
  bad.kind = 9;
  CHECK_FALSE(parse(bad, bytes.size()));
  bad.kind = end_kind;
  CHECK_FALSE(parse(bad, bytes.size()));
}
