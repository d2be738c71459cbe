#include <doctest/doctest.h>
#include <fcntl.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "replica/dirty.h"
#include "replica/verify.h"
#include "test/replica_world.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

constexpr uint64_t grains = 256;  // of a file, in the model; the last one stands for all behind it
constexpr uint64_t no_limit = to_the_end;

/** What is dirty, said simply: each grain, each name. */
struct Model {
  std::set<FileId> inodes, listings, compared_inodes;
  std::set<std::pair<FileId, std::string>> names;
  std::map<FileId, std::set<uint64_t>> data, compared;
  bool everything = false;

  static void range(std::map<FileId, std::set<uint64_t>>& in, FileId file, uint64_t from,
                    uint64_t to) {
    for (uint64_t g = from / dirty_grain; g < grains && g * dirty_grain < to; g++) {
      in[file].insert(g);
    }
  }
  void data_of(FileId file, uint64_t from, uint64_t to) {
    inodes.insert(file);
    range(data, file, from, to);
  }
  void forget(FileId file) {
    inodes.erase(file);
    listings.erase(file);
    compared_inodes.erase(file);
    data.erase(file);
    compared.erase(file);
    std::erase_if(names, [&](const auto& name) { return name.first == file; });
  }
  void add(const WorkItem& item) {
    switch (item.what) {
      case Work::inode:
        inodes.insert(item.file);
        break;
      case Work::entry:
        names.emplace(item.parent, item.name);
        break;
      case Work::listing:
        listings.insert(item.file);
        break;
      case Work::data:
        range(data, item.file, item.from, item.to);
        break;
      case Work::compare:
        range(compared, item.file, item.from, item.to);
        break;
      case Work::compare_inode:
        compared_inodes.insert(item.file);
        break;
      case Work::compare_all:
        everything = true;
        break;
      case Work::none:
        break;
    }
  }

  /** Nothing that the other has is missing here. */
  bool covers(const Model& other) const {
    if (everything) return true;
    const auto within = [](const auto& some, const auto& all) {
      return std::includes(all.begin(), all.end(), some.begin(), some.end());
    };
    for (const auto& name : other.names) {
      if (!names.contains(name) && !listings.contains(name.first)) return false;
    }
    for (const auto& [file, set] : other.data) {
      if (!data.contains(file) || !within(set, data.at(file))) return false;
    }
    for (const auto& [file, set] : other.compared) {
      if (!compared.contains(file) || !within(set, compared.at(file))) return false;
    }
    return !other.everything && within(other.inodes, inodes) && within(other.listings, listings) &&
           within(other.compared_inodes, compared_inodes);
  }
};

/** All that is in a set, which is empty then. */
Model taken(Dirty& dirty, uint64_t limit = no_limit) {
  Model all;
  WorkItem item;
  uint64_t pieces = limit;
  while (dirty.take(item, pieces)) {
    CHECK(item.to - item.from <= pieces);
    // What has no known end is not taken in pieces to its end.
    pieces = item.from >= grains * dirty_grain ? no_limit : limit;
    all.add(item);
  }
  CHECK(dirty.empty());
  const DirtyTotals left = dirty.totals();
  CHECK(left.bytes + left.files + left.names + left.items + left.memory == 0);
  return all;
}

struct Random {
  explicit Random(uint64_t seed) : engine(seed) {}
  uint64_t below(uint64_t n) { return engine() % n; }
  std::mt19937_64 engine;
};

/** One call, made to both. */
void step(Random& random, Dirty& dirty, Model& model) {
  const FileId file = 17 + random.below(12);
  const uint64_t from = random.below(grains * dirty_grain);
  const uint64_t to = random.below(5) == 0 ? to_the_end : from + 1 + random.below(9 * dirty_grain);
  const std::string name(1 + random.below(20), static_cast<char>('a' + random.below(6)));
  switch (random.below(9)) {
    case 0:
    case 1:
      dirty.touch_data(file, from, to);
      return model.data_of(file, from, to);
    case 2:
      dirty.compare_data(file, from, to);
      model.compared_inodes.insert(file);
      return Model::range(model.compared, file, from, to);
    case 3:
    case 4:
      dirty.touch_entry(file, name);
      model.names.emplace(file, name);
      return;
    case 5:
      dirty.touch_inode(file);
      model.inodes.insert(file);
      return;
    case 6:
      if (random.below(4) != 0) return;
      dirty.touch_listing(file);
      model.listings.insert(file);
      return;
    case 7:
      dirty.compare_inode(file);
      model.compared_inodes.insert(file);
      return;
    default:
      if (random.below(4) != 0) return;
      dirty.forget(file);
      return model.forget(file);
  }
}

/** A record, parsed, and the bytes it points into. */
struct Made {
  Made(Kind kind, uint16_t flags, FileId file, const void* body, size_t size,
       const std::string& rest = {}) {
    Stream stream;
    const iovec parts[] = {{const_cast<void*>(body), size},
                           {const_cast<char*>(rest.data()), rest.size()}};
    bytes = stream.record(kind, flags, file, parts);
    REQUIRE(parse_record(bytes, record) == ParseStatus::ok);
  }
  Bytes bytes;
  Record record;
};

template <typename Body>
Model after(Kind kind, const Body& body, const std::string& rest = {}, uint16_t flags = 0) {
  Dirty dirty;
  dirty.touch_inode(77);  // what is forgotten
  dirty.touch_inode(78);
  const Made made(kind, flags, 77, &body, sizeof body, rest);
  dirty.touch(made.record);
  return taken(dirty);
}

}  // namespace

TEST_CASE("dirty: takes out what was put in, against a simple model") {
  for (uint64_t seed = 1; seed <= 60; seed++) {
    Random random(seed);
    Dirty dirty;
    Model model;
    const uint64_t steps = 20 + random.below(400);
    for (uint64_t n = 0; n < steps; n++) step(random, dirty, model);
    const DirtyTotals totals = dirty.totals();
    CHECK(totals.coarsened == 0);
    const uint64_t limit = random.below(2) == 0 ? no_limit : dirty_grain * (1 + random.below(8));
    const Model all = taken(dirty, limit);
    INFO("seed " << seed);
    REQUIRE(all.covers(model));
    // And no more than that: names below a listed directory may be left out.
    REQUIRE((model.covers(all) && all.data == model.data && all.compared == model.compared));
  }
}

TEST_CASE("dirty: with little memory it is coarser, and loses nothing") {
  bool coarser = false, everything = false;
  for (uint64_t seed = 1; seed <= 60; seed++) {
    Random random(seed);
    const uint64_t most = 1500 + random.below(12'000);
    Dirty dirty(most);
    Model model;
    for (uint64_t n = 0; n < 600; n++) {
      step(random, dirty, model);
      REQUIRE(dirty.totals().memory <= most);
    }
    coarser = coarser || dirty.totals().coarsened > 0;
    everything = everything || dirty.totals().everything;
    INFO("seed " << seed);
    REQUIRE(taken(dirty).covers(model));
  }
  CHECK(coarser);
  CHECK(everything);
}

TEST_CASE(
    "dirty: neighbouring ranges are given up before whole directories, and those before all") {
  Dirty dirty(64 << 10);
  for (uint64_t n = 0; n < 3000; n++)
    dirty.touch_data(20, n * 4 * dirty_grain, n * 4 * dirty_grain + 1);
  dirty.touch_entry(1, "name");
  DirtyTotals totals = dirty.totals();
  CHECK(totals.coarsened > 0);
  CHECK(totals.names == 1);
  CHECK(totals.bytes < 3000 * 4 * dirty_grain + 1);
  for (uint64_t n = 0; n < 3000; n++) dirty.touch_entry(1, "name" + std::to_string(n));
  totals = dirty.totals();
  CHECK(totals.names == 0);
  CHECK_FALSE(totals.everything);
  for (FileId n = 0; n < 3000; n++) dirty.touch_inode(100 + n);
  CHECK(dirty.totals().everything);
  const Model all = taken(dirty);
  CHECK(all.everything);
}

TEST_CASE("dirty: the order in which it is taken") {
  Dirty dirty;
  dirty.compare_all();
  dirty.compare_data(30, 0, 10);
  dirty.touch_data(22, 3 * dirty_grain, 5 * dirty_grain);
  dirty.touch_data(21, 0, to_the_end);
  dirty.touch_listing(25);
  dirty.touch_entry(24, "b");
  dirty.touch_entry(24, "a");
  const auto order = [&](bool directories_last) {
    Dirty copy;
    copy.merge(dirty);
    std::string said;
    WorkItem item;
    for (int n = 0; n < 10 && copy.take(item, 2 * dirty_grain - 1, directories_last); n++) {
      said += std::to_string(static_cast<uint32_t>(item.what)) + ":" + std::to_string(item.file) +
              item.name + "+" + std::to_string(item.from / dirty_grain) + " ";
      // A file without a known end would go on for ever.
      if (item.file == 21 && item.from >= dirty_grain) copy.forget(21);
    }
    return said;
  };
  CHECK(order(false) == "1:21+0 1:22+0 2:0a+0 2:0b+0 3:25+0 4:21+0 4:21+1 4:22+3 4:22+4 6:30+0 ");
  CHECK(order(true) == "1:21+0 1:22+0 2:0a+0 2:0b+0 4:21+0 4:21+1 4:22+3 4:22+4 6:30+0 5:30+0 ");
  // What is put back comes again.
  WorkItem item;
  REQUIRE(dirty.take(item, no_limit));
  dirty.give_back(item);
  WorkItem again;
  REQUIRE(dirty.take(again, no_limit));
  CHECK(again.file == item.file);
}

TEST_CASE("dirty: figures") {
  Dirty dirty;
  CHECK(dirty.empty());
  dirty.touch_data(20, 1, 2);
  dirty.touch_data(20, dirty_grain, dirty_grain + 1);
  dirty.touch_data(20, 9 * dirty_grain, to_the_end);
  dirty.touch_entry(1, "x");
  dirty.touch_entry(1, "x");
  const DirtyTotals totals = dirty.totals();
  CHECK(totals.bytes == 2 * dirty_grain);
  CHECK(totals.files == 2);
  CHECK(totals.names == 1);
  CHECK(totals.items == 4);  // the inode, two ranges, the name
  dirty.clear();
  CHECK(dirty.empty());
  CHECK(dirty.totals().memory == 0);
}

TEST_CASE("dirty: what each kind of record touches") {
  const std::set<FileId> both = {77, 78}, other = {78};
  Model all = after(Kind::write, WriteBody{dirty_grain - 1, {}}, "xy");
  CHECK(all.inodes == both);
  CHECK(all.data[77] == std::set<uint64_t>{0, 1});

  all = after(Kind::attributes, AttributesBody{attribute_mode, 0644, 0, 0, 0, {}, {}});
  CHECK(all.data.empty());
  CHECK(all.inodes == both);
  // Cut off at a size: all that is behind, so that it does not come back as the file grows.
  all = after(Kind::attributes, AttributesBody{attribute_size, 0, 0, 0, 9000, {}, {}});
  CHECK(all.data[77].size() == grains - 2);
  CHECK(*all.data[77].begin() == 2);
  InodeBody inode{};
  inode.mode = S_IFREG | 0600;
  inode.size = 9000;
  all = after(Kind::inode, inode);
  CHECK(all.data[77].size() == grains - 2);
  inode.mode = S_IFDIR | 0700;
  inode.size = 0;
  CHECK(after(Kind::inode, inode).data.empty());

  all = after(Kind::allocate, AllocateBody{4096, 4096, 0, 0, {}});
  CHECK(all.data[77] == std::set<uint64_t>{1});
  all = after(Kind::set_xattr, XattrBody{6, 1, 0600, 0}, "user.av");
  CHECK(all.inodes == both);

  CreateBody create{};
  create.parent = 3;
  create.mode = S_IFREG | 0600;
  create.name_size = 1;
  all = after(Kind::create, create, "n");
  CHECK(all.inodes == both);
  CHECK(all.names.contains({3, "n"}));
  CHECK(after(Kind::link, LinkBody{3, {}, 1, 0}, "n").names.contains({3, "n"}));
  CHECK(after(Kind::entry, EntryBody{3, {}, 1, S_IFREG}, "n").names.contains({3, "n"}));
  CHECK(after(Kind::listing, ListingBody{}).listings.contains(77));

  const UnlinkBody unlink{3, {}, 1, 0};
  all = after(Kind::unlink, unlink, "n");
  CHECK(all.names.contains({3, "n"}));
  CHECK(all.inodes == both);
  all = after(Kind::unlink, unlink, "n", flag_last_name);
  CHECK(all.names.contains({3, "n"}));
  CHECK(all.inodes == other);

  RenameBody rename{};
  rename.parent = 3;
  rename.new_parent = 4;
  rename.replaced = 78;
  rename.name_size = 1;
  rename.new_name_size = 2;
  all = after(Kind::rename, rename, "nmm");
  CHECK(all.names.size() == 2);
  CHECK(all.names.contains({3, "n"}));
  CHECK(all.names.contains({4, "mm"}));
  CHECK(all.inodes == both);
  CHECK(after(Kind::rename, rename, "nmm", flag_last_name).inodes == std::set<FileId>{77});
}

TEST_CASE("dirty: a comparison without an answer is made again") {
  const auto check = [](Check kind, uint32_t count) {
    const CheckBody body{static_cast<uint32_t>(kind), count, 1, leaf_size, 0};
    return after(Kind::check, body, std::string(count * sizeof(Hash), 'h'));
  };
  Model all = check(Check::data, 2);
  CHECK(all.compared[77].size() == 2 * leaf_size / dirty_grain);
  CHECK(*all.compared[77].begin() == leaf_size / dirty_grain);
  CHECK(check(Check::data, 0).compared[77].size() == leaf_size / dirty_grain);
  CHECK(check(Check::attributes, 1).compared_inodes.contains(77));
  CHECK(check(Check::entries, 1).listings.contains(77));
  all = check(Check::end, 0);
  CHECK(all.compared.empty());
  CHECK(all.compared_inodes.empty());
}

TEST_CASE("dirty: saved and read again, added to what is there") {
  const Scratch scratch;
  for (uint64_t seed = 1; seed <= 10; seed++) {
    Random random(seed);
    Dirty dirty;
    Model model;
    for (uint64_t n = 0; n < 500; n++) step(random, dirty, model);
    if (seed % 3 == 0) {
      dirty.compare_all();
      model.everything = true;
    }
    REQUIRE(dirty.save(scratch.at("dirty")) == 0);
    Dirty read;
    read.touch_entry(9999, "mine");
    REQUIRE(read.load(scratch.at("dirty")) == 0);
    const DirtyTotals totals = read.totals();
    CHECK(totals.bytes == dirty.totals().bytes);
    CHECK(totals.items == dirty.totals().items + 1);
    Model all = taken(read);
    CHECK(all.names.contains({9999, "mine"}));
    CHECK(all.everything == model.everything);
    all.everything = false;
    model.everything = false;
    CHECK(all.covers(model));
  }
  // Nothing but the file is left, and only its owner reads it.
  struct stat now;
  CHECK(stat(scratch.at("dirty.new").c_str(), &now) != 0);
  REQUIRE(stat(scratch.at("dirty").c_str(), &now) == 0);
  CHECK((now.st_mode & 0777) == 0600);
}

TEST_CASE("dirty: large sets are saved whole") {
  const Scratch scratch;
  Dirty dirty;
  for (uint64_t n = 0; n < 60'000; n++) {
    dirty.touch_entry(20 + n % 7, "a name of some length " + std::to_string(n));
  }
  REQUIRE(dirty.save(scratch.at("dirty")) == 0);
  Dirty read;
  REQUIRE(read.load(scratch.at("dirty")) == 0);
  CHECK(read.totals().names == 60'000);
  // A smaller set has to keep it coarser.
  Dirty small(64 << 10);
  REQUIRE(small.load(scratch.at("dirty")) == 0);
  CHECK(small.totals().memory <= 64 << 10);
  CHECK(taken(small).listings.size() == 7);
}

TEST_CASE("dirty: a damaged file is refused and adds nothing") {
  const Scratch scratch;
  const std::string path = scratch.at("dirty");
  Dirty dirty;
  CHECK(dirty.load(path) == ENOENT);
  Random random(1);
  Model model;
  for (uint64_t n = 0; n < 60; n++) step(random, dirty, model);
  REQUIRE(dirty.save(path) == 0);
  const Bytes good = bytes_of(path);
  Dirty read;
  const auto refused = [&](const Bytes& bytes) {
    put_bytes(path, bytes);
    return read.load(path) == EBADMSG && read.empty();
  };
  for (size_t at = 0; at < good.size(); at++) {
    Bytes bad = good;
    bad[at] ^= 0x10;
    REQUIRE_MESSAGE(refused(bad), "byte " << at);
  }
  for (size_t size = 0; size < good.size(); size += 7) {
    REQUIRE(refused(Bytes(good.begin(), good.begin() + static_cast<ptrdiff_t>(size))));
  }
  Bytes longer = good;
  longer.push_back(0);
  CHECK(refused(longer));
  put_bytes(path, good);
  CHECK(read.load(path) == 0);
}

TEST_CASE("dirty: where it cannot be saved the old file stays") {
  const Scratch scratch;
  Dirty dirty;
  CHECK(dirty.save(scratch.at("no/folder")) == ENOENT);
  dirty.touch_inode(5);
  REQUIRE(dirty.save(scratch.at("dirty")) == 0);
  // Something stands where the new file is written.
  REQUIRE(mkdir(scratch.at("dirty.new").c_str(), 0700) == 0);
  dirty.touch_inode(6);
  CHECK(dirty.save(scratch.at("dirty")) != 0);
  Dirty read;
  REQUIRE(read.load(scratch.at("dirty")) == 0);
  CHECK(taken(read).inodes == std::set<FileId>{5});
}

TEST_CASE("dirty: many threads") {
  Dirty dirty(256 << 10), other(256 << 10);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; t++) {
    threads.emplace_back([&, t] {
      Random random(t);
      Model model;
      WorkItem item;
      for (int n = 0; n < 2000; n++) {
        step(random, t == 1 ? other : dirty, model);
        if (n % 3 == 0) dirty.take(item, dirty_grain);
        if (n % 97 == 0) t == 2 ? other.merge(dirty) : dirty.merge(other);
        CHECK(dirty.totals().memory <= 256 << 10);
      }
    });
  }
  for (std::thread& each : threads) each.join();
  WorkItem item;
  while (dirty.take(item, to_the_end)) {
  }
  CHECK(dirty.empty());
}
