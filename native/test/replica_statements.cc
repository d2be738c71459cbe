// Statements: each in each mode, and that they lead from any directories to those of the source,
// in whatever order they come, with the application's changes in between.

#include <doctest/doctest.h>

#include <cstdlib>
#include <set>

#include "replica/changes.h"
#include "replica/xattrs.h"
#include "test/replica_copy.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

using Bytes = std::vector<uint8_t>;

/** The source of a resync as far as records go: reads its directories, and states how they are. */
class Source {
 public:
  explicit Source(const Life& life) : life_(const_cast<Life&>(life)) {}

  /** All of a file but its names and data; empty: there is no such file. */
  Bytes inode(FileId id, bool values = true) {
    struct stat now;
    const Result<FileRef> file = open(id, now);
    if (!file.ok()) return {};
    InodeBody body{};
    body.size = S_ISREG(now.st_mode) ? static_cast<uint64_t>(now.st_size) : 0;
    body.atime = time_of(now.st_atim);
    body.mtime = time_of(now.st_mtim);
    body.mode = now.st_mode;
    body.uid = now.st_uid;
    body.gid = now.st_gid;
    body.rdev = static_cast<uint32_t>(now.st_rdev);
    body.volume = file.value->volume;
    body.flags = values ? uint32_t{inode_with_values} : 0;
    char target[256];
    ssize_t size = 0;
    if (S_ISLNK(now.st_mode)) {
      size = readlinkat(file.value->fd.get(), "", target, sizeof target);
    }
    body.target_size = static_cast<uint32_t>(size);
    Bytes xattrs;
    REQUIRE(read_xattrs(ProcPath(file.value->fd.get()).text, values, xattrs) == 0);
    body.xattrs_size = static_cast<uint32_t>(xattrs.size());
    return record(Kind::inode, id,
                  {{&body, sizeof body},
                   {target, static_cast<size_t>(size)},
                   {xattrs.data(), xattrs.size()}});
  }

  /** What a name is; empty: there is no such folder. */
  Bytes entry(FileId parent, std::string name) {
    struct stat now, above;
    const Result<FileRef> folder = open(parent, above);
    if (!folder.ok()) return {};
    Handle handle;
    FileId id = 0;
    EntryBody body{};
    if (life_.tree.identify(folder.value->fd.get(), name.c_str(), handle, now) == 0) {
      id = life_.ids.find(folder.value->volume, handle);
      body.type = now.st_mode & S_IFMT;
    }
    body.parent = parent;
    body.parent_mtime = time_of(above.st_mtim);
    body.name_size = static_cast<uint32_t>(name.size());
    return record(Kind::entry, id == 0 ? parent : id,
                  {{&body, sizeof body}, {name.data(), name.size()}});
  }

  /** The names between two others. */
  Bytes listing(FileId id, std::string after = {}, std::string upto = {}) {
    struct stat now;
    const Result<FileRef> folder = open(id, now);
    if (!folder.ok() || folder.value->type != S_IFDIR) return {};
    std::vector<std::string> names;
    REQUIRE(list_names(folder.value->fd.get(), names) == 0);
    std::sort(names.begin(), names.end());
    ListingBody body{};
    Bytes list;
    for (const std::string& name : names) {
      if (name <= after || (!upto.empty() && name > upto)) continue;
      const auto size = static_cast<uint16_t>(name.size());
      list.insert(list.end(), reinterpret_cast<const uint8_t*>(&size),
                  reinterpret_cast<const uint8_t*>(&size) + sizeof size);
      list.insert(list.end(), name.begin(), name.end());
      body.count++;
    }
    body.after_size = static_cast<uint32_t>(after.size());
    body.upto_size = static_cast<uint32_t>(upto.size());
    body.mtime = time_of(now.st_mtim);
    return record(Kind::listing, id,
                  {{&body, sizeof body},
                   {after.data(), after.size()},
                   {upto.data(), upto.size()},
                   {list.data(), list.size()}});
  }

  /** The content of a file; empty: it has none. */
  Bytes data(FileId id) {
    struct stat now;
    const Result<FileRef> file = open(id, now);
    if (!file.ok() || file.value->type != S_IFREG || now.st_size == 0) return {};
    Bytes content(static_cast<size_t>(now.st_size));
    REQUIRE(pread(file.value->fd.get(), content.data(), content.size(), 0) == now.st_size);
    WriteBody body{0, time_of(now.st_mtim)};
    return record(Kind::write, id, {{&body, sizeof body}, {content.data(), content.size()}});
  }

  Bytes record(Kind kind, FileId file, std::vector<iovec> parts, uint16_t flags = 0) {
    RecordHead head{};
    head.kind = static_cast<uint16_t>(kind);
    head.flags = flags;
    head.file = file;
    measure_payload(parts, head);
    Bytes out(record_size(head.payload_size));
    write_record(out.data(), head, parts, tail, 1);
    return out;
  }

  Tail tail;

 private:
  /** Not of one that is removed and still open. */
  Result<FileRef> open(FileId id, struct stat& now) {
    Result<FileRef> file = life_.tree.open(id);
    if (!file.ok()) return file;
    REQUIRE(fstat(file.value->fd.get(), &now) == 0);
    return now.st_nlink > 0 ? std::move(file) : Result<FileRef>::failure(ESTALE, "open");
  }
  static Time time_of(const timespec& time) {
    return {time.tv_sec, static_cast<uint32_t>(time.tv_nsec), 0};
  }
  Life& life_;
};

std::string apply_one(Changes& changes, const Bytes& bytes) {
  Record record;
  const ParseStatus status = parse_record(bytes, record);
  if (status != ParseStatus::ok) return "parse " + std::to_string(static_cast<int>(status));
  const int error = changes.apply(record);
  return error == 0 ? ""
                    : "kind " + std::to_string(static_cast<int>(record.kind)) + ": " +
                          changes.call() + ": " + std::strerror(error);
}

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

 private:
  size_t below(size_t n) { return static_cast<size_t>(random_() % n); }
  bool done() const { return dirty_.empty() && applied_ == records_.size(); }

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
    if (missing.file != 0) all_of(missing.file);
    if (missing.parent != 0 && !missing.adopted) name(missing.parent, missing.name);
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
  std::set<Item> dirty_;
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
