// The source's side of a resync: differing directories become equal, whatever differs.

#include <doctest/doctest.h>

#include <cstdlib>
#include <random>

#include "replica/resync.h"
#include "test/replica_resync_world.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

/** Makes what the records [first, end) changed dirty. */
void touch(Dirty& dirty, const History& history, size_t first, size_t end) {
  std::span<const uint8_t> left = history.records(first, end);
  while (!left.empty()) {
    Record record;
    REQUIRE(parse_record(left, record) == ParseStatus::ok);
    dirty.touch(record);
    left = left.subspan(record.head.size);
  }
}

/** What marks say of those records: of whoever goes back, which is more than touch says. */
void mark(Dirty& dirty, const History& history, size_t first, size_t end, bool compare) {
  std::span<const uint8_t> left = history.records(first, end);
  const auto names = [&](FileId folder) { dirty.touch_listing(folder); };
  while (!left.empty()) {
    Record record;
    REQUIRE(parse_record(left, record) == ParseStatus::ok);
    left = left.subspan(record.head.size);
    const FileId file = record.head.file;
    if (record.kind == Kind::create) names(record.create.parent);
    if (record.kind == Kind::link) names(record.link.parent);
    if (record.kind == Kind::unlink) names(record.unlink.parent);
    if (record.kind == Kind::rename) names(record.rename.parent);
    if (record.kind == Kind::rename) names(record.rename.new_parent);
    if (record.kind == Kind::write || record.kind == Kind::allocate ||
        record.kind == Kind::attributes) {
      compare ? dirty.compare_data(file, 0, to_the_end) : dirty.touch_data(file, 0, to_the_end);
    }
    compare ? dirty.compare_inode(file) : dirty.touch_inode(file);
  }
}

uint64_t number_of(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

/** Runs one seed after another; HOLDFAST_SEED and HOLDFAST_RUNS choose. */
template <typename Run>
void for_seeds(uint64_t runs, Run run) {
  if (skipped()) return;
  const uint64_t first = number_of("HOLDFAST_SEED", 1);
  for (uint64_t seed = first; seed < first + number_of("HOLDFAST_RUNS", runs); seed++) {
    const std::string outcome = run(seed);
    REQUIRE_MESSAGE(outcome == "", "HOLDFAST_SEED=" << seed);
  }
}

/** Two servers that were equal after `common` changes; the source went on. */
struct World {
  explicit World(uint64_t seed)
      : random(seed), history(seed, options_of(seed)), here(history), there(history) {
    const size_t common = random() % 60;
    step(common);
    REQUIRE(apply(source, history, 0, common, false) == "");
    REQUIRE(apply(target, history, 0, common, false) == "");
  }
  static History::Options options_of(uint64_t seed) {
    History::Options options;
    options.volumes = 1 + static_cast<int>(seed % 2);
    return options;
  }
  void step(size_t count) {
    for (size_t n = 0; n < count; n++) history.step();
  }
  /** Changes that only the source has. */
  void alone(size_t count) {
    const size_t from = history.size();
    step(count);
    REQUIRE(apply(source, history, from, history.size(), false) == "");
  }
  /** With what is left in the orphanages: files without a name that the source has no more, whose
   * going was lost on the way. */
  std::string difference() {
    for (uint8_t v = 0; v < target.tree.volumes(); v++) {
      if (const std::string said = tidy(v); !said.empty()) return said;
    }
    return differences(target, history);
  }
  std::string tidy(uint8_t volume) {
    const int root = target.tree.root_fd(volume);
    const Fd folder(openat(root, ".holdfast", O_RDONLY | O_DIRECTORY));
    if (!folder.valid()) return "";
    struct stat before;
    REQUIRE(fstat(root, &before) == 0);
    std::vector<std::string> names;
    REQUIRE(list_names(folder.get(), names) == 0);
    for (const std::string& name : names) {
      Handle handle;
      struct stat now;
      REQUIRE(target.tree.identify(folder.get(), name.c_str(), handle, now) == 0);
      const FileId id = target.ids.find(volume, handle);
      if (history.nodes.contains(id)) return "nameless: " + name;
      left++;
    }
    remove_tree(root, ".holdfast");
    const timespec times[2] = {before.st_atim, before.st_mtim};
    futimens(root, times);
    return "";
  }

  size_t left = 0;
  std::mt19937_64 random;
  History history;
  Copy here, there;
  Life source{here}, target{there};
};

std::string dirty_only(uint64_t seed) {
  World world(seed);
  Rejoin rejoin(world.source, world.target);
  const size_t common = world.history.size();
  world.alone(world.random() % 80);
  touch(rejoin.dirty, world.history, common, world.history.size());
  std::string said = rejoin.run();
  return said.empty() ? world.difference() : said;
}

}  // namespace

TEST_CASE("resync: what records made dirty makes the copies equal") {
  for_seeds(120, dirty_only);
}

TEST_CASE("resync: what only the target did goes back, by its marks") {
  for_seeds(120, [](uint64_t seed) -> std::string {
    World world(seed);
    Rejoin rejoin(world.source, world.target);
    const size_t common = world.history.size();
    History other = world.history;
    other.fork(seed + 1);
    for (size_t n = world.random() % 60; n > 0; n--) other.step();
    if (const std::string said = apply(world.target, other, common, other.size(), false);
        !said.empty()) {
      return said;
    }
    world.alone(world.random() % 60);
    touch(rejoin.dirty, world.history, common, world.history.size());
    mark(rejoin.dirty, other, common, other.size(), seed % 3 == 0);
    std::string said = rejoin.run();
    return said.empty() ? world.difference() : said;
  });
}

TEST_CASE("resync: everything compared by hash, when nothing is known") {
  for_seeds(60, [](uint64_t seed) -> std::string {
    World world(seed);
    Rejoin rejoin(world.source, world.target);
    const size_t common = world.history.size();
    History other = world.history;
    other.fork(seed + 1);
    for (size_t n = world.random() % 30; n > 0; n--) other.step();
    if (const std::string said = apply(world.target, other, common, other.size(), false);
        !said.empty()) {
      return said;
    }
    world.alone(world.random() % 30);
    rejoin.dirty.compare_all();
    std::string said = rejoin.run();
    return said.empty() ? world.difference() : said;
  });
}

TEST_CASE("resync: a first copy, from nothing but the roots") {
  for_seeds(60, [](uint64_t seed) -> std::string {
    History history(seed, World::options_of(seed));
    const Copy here(history), there(history);
    Life source(here), target(there);
    for (size_t n = 20 + seed % 100; n > 0; n--) history.step();
    if (const std::string said = apply(source, history, 0, history.size(), false); !said.empty()) {
      return said;
    }
    Rejoin rejoin(source, target);
    for (size_t v = 1; v <= here.volumes; v++) {
      rejoin.dirty.touch_listing(v);
      rejoin.dirty.touch_inode(v);
    }
    std::string said = rejoin.run();
    return said.empty() ? differences(target, history) : said;
  });
}

TEST_CASE("resync: while the application goes on, nothing old goes over what is new") {
  for_seeds(60, [](uint64_t seed) -> std::string {
    World world(seed);
    Rejoin rejoin(world.source, world.target, seed % 2 == 0 ? 4u << 20 : 1u << 20);
    const size_t common = world.history.size();
    world.alone(world.random() % 80);
    touch(rejoin.dirty, world.history, common, world.history.size());
    if (seed % 4 == 0) {
      for (size_t v = 1; v <= world.here.volumes; v++) rejoin.dirty.touch_listing(v);
    }
    const size_t from = world.history.size();
    world.step(300);
    ResyncOptions options;
    options.piece = 4096;
    rejoin.start(options);
    Application application(world.source, rejoin);
    std::string said = application.make(world.history, from, world.history.size());
    if (said.empty()) said = rejoin.finish_all();
    return said.empty() ? world.difference() : said;
  });
}

TEST_CASE("resync: what is lost on the way is dirty again") {
  for_seeds(60, [](uint64_t seed) -> std::string {
    World world(seed);
    Rejoin rejoin(world.source, world.target);
    const size_t common = world.history.size();
    world.alone(world.random() % 80);
    touch(rejoin.dirty, world.history, common, world.history.size());
    if (seed % 3 == 0) rejoin.dirty.compare_all();
    Application application(world.source, rejoin);
    std::string said;
    for (int round = 0; round < 6 && said.empty(); round++) {
      rejoin.start();
      const size_t from = world.history.size();
      world.step(world.random() % 40);
      said = application.make(world.history, from, world.history.size());
      if (world.random() % 2 == 0) rejoin.wire.pause(true);
      const size_t more = world.history.size();
      world.step(world.random() % 20);
      if (said.empty()) said = application.make(world.history, more, world.history.size());
      rejoin.resync.stop();
      rejoin.wire.lose(rejoin.dirty);
      rejoin.wire.pause(false);
    }
    if (!said.empty()) return said;
    said = rejoin.run();
    return said.empty() ? world.difference() : said;
  });
}
