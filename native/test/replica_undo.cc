#include <doctest/doctest.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <csignal>
#include <cstdlib>
#include <optional>

#include "test/replica_target.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

void add_one(int folder, const std::string& name, std::mt19937_64& random) {
  const uint64_t type = random() % 6;
  if (type == 0) {
    REQUIRE(symlinkat("elsewhere", folder, name.c_str()) == 0);
  } else if (type == 1) {
    REQUIRE(mkdirat(folder, name.c_str(), 0750) == 0);
    REQUIRE(symlinkat("inside", folder, (name + "/b").c_str()) == 0);
  } else {
    const Fd file(openat(folder, name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0640));
    const std::string content(random() % 9000, static_cast<char>('0' + random() % 10));
    REQUIRE(pwrite(file.get(), content.data(), content.size(), 0) >= 0);
    REQUIRE(fsetxattr(file.get(), "trusted.foreign", "yes", 3, 0) == 0);
    if (type == 2) linkat(folder, name.c_str(), folder, "hard", 0);
  }
}

/** Files that no record knows, where there is room for them. */
void add_foreign(Life& life, const History& history, std::mt19937_64& random) {
  for (const auto& [id, node] : history.nodes) {
    if (!node.is_folder()) continue;
    const Result<FileRef> folder = life.tree.open(id);
    REQUIRE(folder.ok());
    for (const char* name : {"a", "b", "c", "d", "e"}) {
      if (node.names.contains(name) || random() % 2 == 0) continue;
      add_one(folder.value->fd.get(), name, random);
    }
  }
}

/** Applies [first, end) as a target does; the last batch perhaps not whole. Empty: done. */
std::string resync(Target& target, const ResyncStream& stream, size_t first, size_t end,
                   std::mt19937_64& random) {
  if (target.changes.begin(ApplyMode::resync) != 0) return "begin";
  while (first < end) {
    const size_t until = std::min(end, first + 1 + random() % 12);
    const std::vector<Record> batch = stream.records(first, until);
    if (const int error = target.undo.before(batch); error != 0) return "before";
    const size_t made = until == end ? random() % (batch.size() + 1) : batch.size();
    for (size_t i = 0; i < made; i++) {
      const int error = target.changes.apply(batch[i]);
      if (error == 0) continue;
      return "record " + std::to_string(first + i + 1) + " of kind " +
             std::to_string(static_cast<int>(batch[i].kind)) + ": " + target.changes.call() + ": " +
             std::strerror(error);
    }
    if (random() % 2 == 0) target.changes.flush_times();
    first = until;
  }
  return "";
}

/** A process that takes back, killed at some moment unless it is faster. */
void take_back_and_be_killed(const Copy& copy, const char* table, unsigned after_us) {
  int began[2];
  REQUIRE(pipe(began) == 0);
  const pid_t child = fork();
  if (child == 0) {
    Target target(copy, table);
    if (write(began[1], "", 1) != 1) _exit(1);
    _exit(target.undo.take_back(target.changes) == 0 ? 0 : 2);
  }
  char byte;
  REQUIRE(read(began[0], &byte, 1) == 1);
  usleep(after_us);
  kill(child, SIGKILL);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  close(began[0]);
  close(began[1]);
  CHECK((WIFSIGNALED(status) || WEXITSTATUS(status) == 0));
}

/** A tree, a resync of it that stops somewhere (after stops of the process), and back again. */
std::string there_and_back(uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  History::Options options;
  options.volumes = below(4) == 0 ? 2 : 1;
  options.folders = 2 + static_cast<int>(below(6));
  options.names_only = below(3) == 0;
  if (seed % 4 == 0) options.only_folders();
  History history(seed, options);
  const Copy copy(history);
  const size_t before = below(60), after = 1 + below(below(10) == 0 ? 200 : 50);
  for (size_t n = 0; n < before; n++) history.step();
  std::optional<Picture> first;
  {
    Life life(copy);
    const std::string error = apply(life, history, 0, before, false);
    if (!error.empty()) return "before the resync: " + error;
    if (below(2) == 0) add_foreign(life, history, random);
    first.emplace(life);
    copy.keep_ids("ids.old");
  }
  ResyncStream stream;
  // What the stream leaves out, the target lacks: statements are then about files that it has not
  // got, and foreign ones are taken for them.
  const size_t statements = below(3), left_out = below(2) == 0 ? below(5) : 0;
  for (size_t n = 0; n < after; n++) {
    for (size_t s = below(statements * 2 + 1); s > 0; s--) stream.statement(history);
    history.step();
    if (below(5) < left_out) {
      stream.about(history, history.records(before + n, before + n + 1));
    } else {
      stream.change(history, before + n, before + n + 1);
    }
  }
  std::string table = "ids";
  size_t from = 0;
  for (size_t lives = 1 + below(3); lives > 0; lives--) {
    Target target(copy, table.c_str(), below(2) == 0 ? 0 : 2000);
    const size_t until = from + below(stream.size() - from + 1);
    const std::string error = resync(target, stream, from, until, random);
    if (!error.empty()) return "in the resync: " + error;
    // Killed: what is in the table stays. The machine stopped: it is as it was when all began.
    const bool stopped = table == "ids" && below(3) == 0;
    if (stopped) table = "ids.old";
    from = stopped ? 0 : below(until + 1);
  }
  for (size_t kills = below(3); kills > 0; kills--) {
    take_back_and_be_killed(copy, table.c_str(), static_cast<unsigned>(below(4000)));
  }
  for (int again = 0; again < 2; again++) {
    Target target(copy, table.c_str());
    const int error = target.undo.take_back(target.changes);
    if (error != 0) return std::string("taking back: ") + std::strerror(error);
    const std::string difference = first->difference(Picture(target.life));
    if (!difference.empty()) return difference;
    if (again == 1 && target.undo.discard() != 0) return "discard";
  }
  return access(copy.file("undo").c_str(), F_OK) == 0 ? "the log is still there" : "";
}

uint64_t number(const char* name, uint64_t otherwise) {
  const char* given = std::getenv(name);
  return given != nullptr ? std::strtoull(given, nullptr, 10) : otherwise;
}

}  // namespace

TEST_CASE("undo: the way back from anywhere in a resync ends where it began") {
  if (skipped()) return;
  const uint64_t seed = number("HOLDFAST_SEED", 1), runs = number("HOLDFAST_RUNS", 600);
  for (uint64_t s = seed; s < seed + runs; s++) {
    const std::string outcome = there_and_back(s);
    REQUIRE_MESSAGE(outcome == "", "HOLDFAST_SEED=" << s);
  }
}
