#pragma once
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "replica/applier.h"
#include "test/replica_compare.h"
#include "test/replica_history.h"
#include "test/replica_scratch.h"

/** A secondary's directories and ids, and the process that applies to them. */
namespace holdfast::replica::test {

struct Sink final : ApplierSink {
  Lsn last = 0, replayed_at = 0;
  ApplyFailure failure;
  std::vector<CheckResult> results;
  void applied(Lsn lsn) override { last = lsn; }
  void replayed(Lsn lsn) override { replayed_at = lsn; }
  void failed(const ApplyFailure& f) override { failure = f; }
  void checked(const CheckResult& result) override { results.push_back(result); }
  void missing(const Missing&, Lsn) override {}
  int synced(const Record&, const JournalPoint&) override { return 0; }
};

/** The directories of a secondary, and its ids, as processes come and go. */
struct Copy {
  explicit Copy(const History& first) {
    for (const auto& [id, root] : first.nodes) {
      const Fd folder = scratch.folder("v" + std::to_string(id));
      const timespec times[2] = {{0, UTIME_OMIT}, {root.mtime.seconds, root.mtime.nanoseconds}};
      futimens(folder.get(), times);
      volumes++;
    }
  }
  std::string file(const char* name) const { return scratch.at(name); }
  void keep_ids(const char* name) const {
    const Fd from(open(file("ids").c_str(), O_RDONLY));
    const Fd to(open(file(name).c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600));
    struct stat now;
    REQUIRE(fstat(from.get(), &now) == 0);
    const auto size = static_cast<size_t>(now.st_size);
    REQUIRE(copy_file_range(from.get(), nullptr, to.get(), nullptr, size, 0) == now.st_size);
  }

  Scratch scratch;
  size_t volumes = 0;
};

/** One life of the process. */
struct Life {
  explicit Life(const Copy& copy, const char* table = "ids") {
    REQUIRE(ids.open(copy.scratch.at(table)).ok());
    for (size_t v = 1; v <= copy.volumes; v++) {
      REQUIRE(tree.add_volume(copy.scratch.folder("v" + std::to_string(v))).ok());
    }
  }
  Ids ids;
  Tree tree{ids, 64};
};

inline Batch batch_of(const History& history, size_t first, size_t end) {
  Batch batch;
  batch.records = history.records(first, end);
  batch.end.tail.lsn = end;
  return batch;
}

/** Applies [first, end) by an applier, in batches; then the replay, if it is one, is over.
 * `saved`: where a replay may begin after that. */
inline std::string apply(Life& life, const History& history, size_t first, size_t end, bool replay,
                         bool whole = true, const Faults* faults = nullptr,
                         size_t* saved = nullptr) {
  Sink sink;
  ApplierOptions options;
  options.faults = faults;
  Applier applier(life.tree, life.ids, options, sink);
  JournalPoint from;
  from.tail.lsn = first;
  if (applier.start(from, replay ? ApplyMode::replay : ApplyMode::normal) != 0) return "start";
  const size_t step = 1 + first % 7;
  for (size_t at = first; at < end; at += step) {
    applier.submit(batch_of(history, at, std::min(end, at + step)));
  }
  if (replay && whole) applier.end_replay();
  applier.drain();
  if (saved != nullptr) *saved = applier.checkpoint().value.tail.lsn;
  applier.stop();
  if (sink.failure.error == 0) return "";
  return "record " + std::to_string(sink.failure.lsn) + ": " + sink.failure.call + ": " +
         std::strerror(sink.failure.error);
}

inline std::string differences(const Life& life, const History& history) {
  return Comparison(life.tree, life.ids, history).run();
}

inline bool skipped() {
  if (!is_root()) MESSAGE("skipped: file handles need root");
  return !is_root();
}

}  // namespace holdfast::replica::test
