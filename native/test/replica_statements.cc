// Statements: each in each mode, and that they lead from any directories to those of the source,
// in whatever order they come, with the application's changes in between.

#include <doctest/doctest.h>

#include <cstdlib>
#include <set>

#include "test/replica_source.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

enum class Piece { inode, entry, listing, data };
using Item = std::tuple<Piece, FileId, std::string>;

/** A resync between two copies, in one process. */
class Resync {
 public:
  Resync(uint64_t seed, const Copy& source, const Copy& target, History& history)
      : random_(seed),
        target_(target),
        history_(history),
        source_life_(source),
        source_(source_life_) {
    begin(0);
  }

  void all_of(FileId id) {
    dirty_.insert({Piece::inode, id, ""});
    dirty_.insert({Piece::data, id, ""});
    dirty_.insert({Piece::listing, id, ""});
  }
  void name(FileId parent, const std::string& text) { dirty_.insert({Piece::entry, parent, text}); }

  /** Until nothing is dirty; `changes` changes of the application in between. Empty or what
   * failed. */
  std::string run(size_t changes, int kills, bool in_order) {
    for (size_t turns = 0; !done() || changes > 0; turns++) {
      if (turns > 20'000) return "no end";
      if (changes > 0 && below(3) == 0) {
        changes--;
        change();
      } else if (!dirty_.empty()) {
        auto at = dirty_.begin();
        if (!in_order) std::advance(at, below(dirty_.size()));
        Item item = *at;
        // The size first: beyond it a change that lengthens the file finds what must not be there.
        const Item size{Piece::inode, std::get<1>(item), ""};
        if (std::get<0>(item) == Piece::data && dirty_.contains(size)) item = size;
        dirty_.erase(item);
        const Bytes record = state(item);
        if (!record.empty()) records_.push_back(record);
      }
      if (const std::string error = catch_up(); !error.empty()) return error;
      if (!far || dirty_.empty() || below(8) == 0) dirty_.merge(heard_);
      if (kills > 0 && below(20) == 0) {
        kills--;
        begin(checkpoint_ + below(flushed_ - checkpoint_ + 1));
      }
    }
    const int error = changes_->end_resync(nullptr);
    if (error != 0) return std::string("end: ") + changes_->call() + ": " + std::strerror(error);
    return Comparison(target_life_->tree, target_life_->ids, history_).run();
  }

  Changes& changes() { return *changes_; }
  Life& life() { return *target_life_; }
  size_t adopted = 0;
  /** What the target lacks is heard some pieces later, as over a network. A source that heard it
   * before its next piece and always took the lowest would state the same again for ever, when that
   * waits for a folder further on to be moved. */
  bool far = false;

 private:
  size_t below(size_t n) { return static_cast<size_t>(random_() % n); }
  bool done() const { return dirty_.empty() && heard_.empty() && applied_ == records_.size(); }

  /** A new process, which begins with what is behind the checkpoint. */
  void begin(size_t from) {
    changes_.reset();
    target_life_ = std::make_unique<Life>(target_);
    changes_ = std::make_unique<Changes>(target_life_->tree, target_life_->ids, nullptr);
    changes_->on_missing([this](const Missing& missing) { hear(missing); });
    REQUIRE(changes_->begin(ApplyMode::resync) == 0);
    applied_ = checkpoint_ = flushed_ = from;
  }

  void hear(const Missing& missing) {
    adopted += missing.adopted ? 1 : 0;
    dirty_.swap(heard_);
    if (missing.file != 0) all_of(missing.file);
    if (missing.parent != 0 && !missing.adopted) name(missing.parent, missing.name);
    dirty_.swap(heard_);
  }

  /** One change of the application: made on the source, then sent. */
  void change() {
    history_.step();
    const size_t last = history_.size() - 1;
    Changes own(source_life_.tree, source_life_.ids, nullptr);
    own.begin(ApplyMode::normal);
    const auto bytes = history_.records(last, last + 1);
    REQUIRE(apply_one(own, Bytes(bytes.begin(), bytes.end())) == "");
    REQUIRE(own.flush_times() == 0);
    records_.emplace_back(bytes.begin(), bytes.end());
  }

  Bytes state(const Item& item) {
    const auto& [piece, id, text] = item;
    switch (piece) {
      case Piece::inode:
        return source_.inode(id);
      case Piece::entry:
        return source_.entry(id, text);
      case Piece::listing:
        if (below(2) == 0 || source_.listing(id).empty()) return source_.listing(id);
        records_.push_back(source_.listing(id, "", "c"));
        return source_.listing(id, "c", "");
      case Piece::data:
        return source_.data(id);
    }
    return {};
  }

  std::string catch_up() {
    while (applied_ < records_.size()) {
      const std::string error = apply_one(*changes_, records_[applied_]);
      if (!error.empty()) return error;
      applied_++;
      if (below(8) != 0) continue;
      changes_->flush_times();
      flushed_ = applied_;
    }
    return "";
  }

  std::mt19937_64 random_;
  const Copy& target_;
  History& history_;
  Life source_life_;
  Source source_;
  std::unique_ptr<Life> target_life_;
  std::unique_ptr<Changes> changes_;
  std::set<Item> dirty_, heard_;
  std::vector<Bytes> records_;
  size_t applied_ = 0, checkpoint_ = 0;
  size_t flushed_ = 0;  // here the times were set: a checkpoint may follow
};

/** Everything that the records from `first` on speak of. */
void touched(Resync& resync, const History& history, size_t first) {
  for (size_t at = first; at < history.size(); at++) {
    Record record;
    REQUIRE(parse_record(history.records(at, at + 1), record) == ParseStatus::ok);
    resync.all_of(record.head.file);
    FileId parents[2] = {0, 0};
    if (record.kind == Kind::create) parents[0] = record.create.parent;
    if (record.kind == Kind::link) parents[0] = record.link.parent;
    if (record.kind == Kind::unlink) parents[0] = record.unlink.parent;
    if (record.kind == Kind::rename) {
      parents[0] = record.rename.parent;
      parents[1] = record.rename.new_parent;
      if (record.rename.replaced != 0) resync.all_of(record.rename.replaced);
    }
    if (parents[0] != 0) {
      resync.name(parents[0], std::string(record.name));
      resync.all_of(parents[0]);
    }
    if (parents[1] != 0) {
      resync.name(parents[1], std::string(record.second));
      resync.all_of(parents[1]);
    }
  }
}

/** Two copies with a common past: what each had alone is dirty. Empty: equal in the end. */
std::string after_a_fork(uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  History::Options options;
  options.volumes = below(4) == 0 ? 2 : 1;
  options.folders = 2 + static_cast<int>(below(6));
  options.names_only = below(2) == 0;
  if (seed % 4 == 0) options.only_folders();
  History history(seed, options);
  const Copy source(history), target(history);
  const size_t common = below(40);
  for (size_t n = 0; n < common; n++) history.step();
  History other = history;
  other.fork(seed + 1);
  for (size_t n = below(30); n > 0; n--) history.step();
  for (size_t n = below(30); n > 0; n--) other.step();
  {
    Life life(source);
    std::string error = apply(life, history, 0, history.size(), false);
    if (!error.empty()) return "source: " + error;
    Life there(target);
    error = apply(there, other, 0, other.size(), false);
    if (!error.empty()) return "target: " + error;
  }
  Resync resync(seed, source, target, history);
  resync.far = options.folders_only;
  touched(resync, history, common);
  touched(resync, other, common);
  return resync.run(below(30), static_cast<int>(below(3)), below(2) == 0);
}

/** An empty target, or one with the same names and no ids, of which the source knows nothing. */
std::string first_copy(uint64_t seed, bool foreign, size_t& adopted) {
  std::mt19937_64 random(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  History::Options options;
  options.volumes = below(4) == 0 ? 2 : 1;
  History history(seed, options);
  const Copy source(history), target(history);
  for (size_t n = 10 + below(60); n > 0; n--) history.step();
  {
    Life life(source);
    const std::string error = apply(life, history, 0, history.size(), false);
    if (!error.empty()) return "source: " + error;
  }
  if (foreign) {
    History other = history;
    other.fork(seed + 1);
    for (size_t n = below(20); n > 0; n--) other.step();
    Life there(target, "other ids");
    const std::string error = apply(there, other, 0, other.size(), false);
    if (!error.empty()) return "target: " + error;
  }
  Resync resync(seed, source, target, history);
  for (FileId root = 1; root <= static_cast<FileId>(options.volumes); root++) resync.all_of(root);
  const std::string error = resync.run(below(30), static_cast<int>(below(3)), below(2) == 0);
  adopted += resync.adopted;
  return error;
}

uint64_t number_of(const char* variable, uint64_t otherwise) {
  const char* given = std::getenv(variable);
  return given != nullptr ? std::strtoull(given, nullptr, 10) : otherwise;
}

template <typename Run>
void for_seeds(uint64_t runs, Run run) {
  const uint64_t first = number_of("HOLDFAST_SEED", 1);
  for (uint64_t seed = first; seed < first + number_of("HOLDFAST_RUNS", runs); seed++) {
    const std::string outcome = run(seed);
    REQUIRE_MESSAGE(outcome == "", "HOLDFAST_SEED=" << seed);
  }
}

}  // namespace

TEST_CASE("statements: what two servers did apart from each other becomes one") {
  if (skipped()) return;
  for_seeds(600, [](uint64_t seed) { return after_a_fork(seed); });
}

TEST_CASE("statements: the listing of the roots makes a first copy") {
  if (skipped()) return;
  size_t adopted = 0;
  for_seeds(150, [&](uint64_t seed) { return first_copy(seed, false, adopted); });
  CHECK(adopted == 0);
}

TEST_CASE("statements: files that are there already are taken for the source's") {
  if (skipped()) return;
  size_t adopted = 0;
  for_seeds(150, [&](uint64_t seed) { return first_copy(seed, true, adopted); });
  CHECK(adopted > 0);
}
