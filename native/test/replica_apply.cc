#include <doctest/doctest.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "replica/applier.h"
#include "replica/changes.h"
#include "replica/faults.h"
#include "test/replica_copy.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

/** Changes without an applier, so without mtimes at the end: as a kill leaves them. */
std::string apply_and_die(Life& life, const History& history, size_t first, size_t end) {
  Changes changes(life.tree, life.ids, nullptr);
  changes.begin(ApplyMode::normal);
  for (size_t at = first; at < end; at++) {
    Record record;
    if (parse_record(history.records(at, at + 1), record) != ParseStatus::ok) return "parse";
    if (const int error = changes.apply(record); error != 0) {
      return "record " + std::to_string(at + 1) + ": " + changes.call() + ": " +
             std::strerror(error);
    }
    if (at % 5 == 4) changes.flush_times();
  }
  return "";
}

/** What a stop of the machine may do to data that was written but not synced. */
void lose_data(Life& life, const History& history, size_t first, size_t end, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (size_t at = first; at < end; at++) {
    Record record;
    if (parse_record(history.records(at, at + 1), record) != ParseStatus::ok) continue;
    if (record.kind != Kind::write || random() % 2 == 0) continue;
    const Result<FileRef> file = life.tree.open(record.head.file);
    if (!file.ok()) continue;
    struct stat now;
    fstat(file.value->fd.get(), &now);
    const auto size = static_cast<uint64_t>(now.st_size);
    if (record.write.offset >= size) continue;
    const std::string rubbish(std::min<uint64_t>(size - record.write.offset, record.data.size()),
                              random() % 2 == 0 ? '\0' : '!');
    REQUIRE(pwrite(file.value->fd.get(), rubbish.data(), rubbish.size(),
                   static_cast<off_t>(record.write.offset)) > 0);
  }
}

/**
 * A history; the checkpoint after `i` records; a stop after `j`; perhaps stops during the replay;
 * the ids as they are, or as they were at any moment since the checkpoint. Empty: the directories
 * are what the history says.
 */
std::string converge(uint64_t seed, const Faults* faults = nullptr, bool folders_only = false) {
  std::mt19937_64 random(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  History::Options options;
  options.volumes = below(4) == 0 ? 2 : 1;
  options.folders = 2 + static_cast<int>(below(6));
  options.names_only = below(2) == 0;
  if (folders_only) options.only_folders();
  History history(seed, options);
  const Copy copy(history);
  const size_t size = folders_only ? 40 + below(80) : 6 + below(below(20) == 0 ? 300 : 50);
  for (size_t n = 0; n < size; n++) history.step();
  const size_t i = below(size), m = i + below(size - i + 1);
  // Killed processes leave the file system at the journal's end.
  const size_t j = folders_only && below(2) == 0 ? size : m + below(size - m + 1);
  std::string error;
  {
    Life life(copy);
    error = apply(life, history, 0, i, false);
    copy.keep_ids("ids.old");
    if (error.empty()) error = apply(life, history, i, m, false);
    if (below(2) == 0) copy.keep_ids("ids.old");
    if (error.empty()) error = apply_and_die(life, history, m, j);
    if (below(2) == 0) lose_data(life, history, i, j, seed);
  }
  if (!error.empty()) return "before the stop: " + error;
  const char* table = below(2) == 0 ? "ids" : "ids.old";
  size_t from = i;
  for (size_t stops = below(3); stops > 0; stops--) {
    Life life(copy, table);
    const size_t until = from + below(size - from + 1);
    size_t saved = from;
    error = apply(life, history, from, until, true, false, faults, &saved);
    if (!error.empty()) return "in a replay that is cut short: " + error;
    if (below(3) == 0) from = saved;  // a checkpoint in the middle of the replay
  }
  Life life(copy, table);
  error = apply(life, history, from, size, true, true, faults);
  if (!error.empty()) return "in the replay: " + error;
  return differences(life, history);
}

uint64_t first_seed() {
  const char* given = std::getenv("HOLDFAST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
}

uint64_t seeds(uint64_t otherwise) {
  const char* given = std::getenv("HOLDFAST_RUNS");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : otherwise;
}

/** How many of the seeds end in a difference or a failure. */
int found_by(const Faults& faults, uint64_t runs, bool folders_only = false) {
  int found = 0;
  for (uint64_t seed = 1; seed <= runs; seed++) {
    found += converge(seed, &faults, folders_only).empty() ? 0 : 1;
  }
  return found;
}

}  // namespace

TEST_CASE("applier: a history in order makes exactly what it says") {
  if (skipped()) return;
  for (uint64_t seed = first_seed(); seed < first_seed() + seeds(100); seed++) {
    History::Options options;
    options.volumes = 1 + static_cast<int>(seed % 2);
    History history(seed, options);
    const Copy copy(history);
    for (int n = 0; n < 200; n++) history.step();
    Life life(copy);
    const std::string error = apply(life, history, 0, history.size(), false);
    CHECK_MESSAGE(error == "", "seed " << seed);
    const std::string difference = differences(life, history);
    REQUIRE_MESSAGE(difference == "", "seed " << seed);
  }
}

TEST_CASE("applier: a replay converges from wherever the file system is") {
  if (skipped()) return;
  for (uint64_t seed = first_seed(); seed < first_seed() + seeds(1500); seed++) {
    const std::string outcome = converge(seed);
    REQUIRE_MESSAGE(outcome == "", "HOLDFAST_SEED=" << seed);
  }
}

TEST_CASE("applier: a replay converges when folders change places all the time") {
  if (skipped()) return;
  for (uint64_t seed = first_seed(); seed < first_seed() + seeds(1000); seed++) {
    const std::string outcome = converge(seed, nullptr, true);
    REQUIRE_MESSAGE(outcome == "", "HOLDFAST_SEED=" << seed);
  }
}

/** A process that applies everything, killed at some moment unless it is faster. */
static void apply_and_be_killed(const Copy& copy, const History& history, bool replay,
                                unsigned after_us) {
  int began[2];
  REQUIRE(pipe(began) == 0);
  const pid_t child = fork();
  if (child == 0) {
    Life life(copy);
    if (write(began[1], "", 1) != 1) _exit(1);
    _exit(apply(life, history, 0, history.size(), replay).empty() ? 0 : 2);
  }
  char byte;
  REQUIRE(read(began[0], &byte, 1) == 1);
  usleep(after_us);
  kill(child, SIGKILL);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK((WIFSIGNALED(status) || WEXITSTATUS(status) == 0));
  close(began[0]);
  close(began[1]);
}

TEST_CASE("applier: killed at any moment, also in the replay, it converges in the end") {
  if (skipped()) return;
  for (uint64_t seed = first_seed(); seed < first_seed() + seeds(100); seed++) {
    std::mt19937_64 random(seed);
    History history(seed, {});
    const Copy copy(history);
    for (int n = 0; n < 200; n++) history.step();
    for (int kills = 0; kills < 3; kills++) {
      apply_and_be_killed(copy, history, kills > 0, static_cast<unsigned>(random() % 4000));
    }
    Life life(copy);
    const std::string error = apply(life, history, 0, history.size(), true);
    const std::string difference = error.empty() ? differences(life, history) : error;
    REQUIRE_MESSAGE(difference == "", "HOLDFAST_SEED=" << seed);
  }
}

TEST_CASE("applier: bugs that are planted are found") {
  if (skipped()) return;
  Faults reordered, lost, careless, stays;
  reordered.reorder_apply = true;
  lost.lose_mtime = true;
  careless.skip_displacement = true;
  stays.folder_stays = true;
  CHECK(found_by(reordered, 100) > 0);
  CHECK(found_by(lost, 100) > 0);
  CHECK(found_by(careless, 100) > 0);
  CHECK(found_by(stays, 1000, true) > 0);
}
