#include <doctest/doctest.h>
#include <sys/resource.h>

#include <csignal>

#include "replica/super.h"
#include "test/replica_world.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

SuperState state_of(uint32_t number) {
  SuperState state;
  for (size_t i = 0; i < sizeof state.set; i++) state.set[i] = static_cast<uint8_t>(number + i);
  state.node = number;
  state.state = DiskState::in_sync;
  state.epoch = 1000 + number;
  state.required_peer = 0;
  state.role = 2;
  state.clean = 1;
  state.checkpoint = {number * 4096ull, {number + 1, number + 2, number + 3}};
  state.last = {number + 4, number + 5, number + 6};
  state.base = {number + 7, number + 8, number + 9};
  state.base_state = number % 5;
  state.resync = number + 10;
  state.history_size = max_history;
  for (uint32_t i = 0; i < max_history; i++) state.history[i] = {i, number + i, i % 2, i % 2};
  return state;
}

bool same(const Tail& a, const Tail& b) {
  return a.lsn == b.lsn && a.epoch == b.epoch && a.chain == b.chain;
}

bool same(const SuperState& a, const SuperState& b) {
  bool equal = a.node == b.node && a.state == b.state && a.epoch == b.epoch &&
               a.required_peer == b.required_peer && a.role == b.role && a.clean == b.clean &&
               a.checkpoint.cursor == b.checkpoint.cursor &&
               same(a.checkpoint.tail, b.checkpoint.tail) && same(a.last, b.last) &&
               same(a.base, b.base) && a.base_state == b.base_state && a.resync == b.resync &&
               a.history_size == b.history_size && std::memcmp(a.set, b.set, sizeof a.set) == 0;
  for (size_t i = 0; i < max_history; i++) {
    const EpochStart &x = a.history[i], &y = b.history[i];
    equal = equal && x.epoch == y.epoch && x.first == y.first && x.primary == y.primary &&
            x.alone == y.alone;
  }
  return equal;
}

SuperState reopened(const std::string& path) {
  Super super;
  const Result<bool> opened = super.open(path);
  REQUIRE(opened.ok());
  CHECK_FALSE(opened.value);
  return super.state();
}

}  // namespace

TEST_CASE("super: a new one allows nothing, and each saved state comes back") {
  const Scratch folder;
  const std::string path = folder.at("super");
  {
    Super super;
    const Result<bool> opened = super.open(path);
    REQUIRE(opened.ok());
    CHECK(opened.value);
    CHECK(same(super.state(), SuperState()));
    CHECK(super.state().required_peer == 1);
  }
  CHECK(same(reopened(path), SuperState()));
  for (uint32_t number = 1; number < 6; number++) {
    Super super;
    REQUIRE(super.open(path).ok());
    REQUIRE(super.save(state_of(number)) == 0);
    CHECK(same(super.state(), state_of(number)));
    CHECK(same(reopened(path), state_of(number)));
  }
  CHECK(bytes_of(path).size() == 2 * 4096);
  CHECK(access((path + ".new").c_str(), F_OK) != 0);
}

TEST_CASE("super: a torn write leaves the state before it or makes the new one") {
  const Scratch folder;
  const std::string path = folder.at("super");
  std::mt19937 random(7);
  Super super;
  REQUIRE(super.open(path).ok());
  int old_ones = 0, new_ones = 0;
  for (uint32_t number = 1; number < 200; number++) {
    const SuperState before = super.state();
    const Bytes old_bytes = bytes_of(path);
    REQUIRE(super.save(state_of(number)) == 0);
    const Bytes new_bytes = bytes_of(path);
    Bytes torn = old_bytes;
    for (size_t sector = 0; sector < torn.size(); sector += 512) {
      if (random() % 8 == 0) continue;
      std::copy_n(new_bytes.begin() + static_cast<long>(sector), 512,
                  torn.begin() + static_cast<long>(sector));
    }
    put_bytes(folder.at("torn"), torn);
    const SuperState found = reopened(folder.at("torn"));
    const bool is_old = same(found, before), is_new = same(found, state_of(number));
    CHECK((is_old || is_new));
    old_ones += is_old ? 1 : 0;
    new_ones += is_new ? 1 : 0;
  }
  CHECK(old_ones > 0);
  CHECK(new_ones > 0);
}

TEST_CASE("super: every single flipped bit of the newer slot is seen") {
  const Scratch folder;
  const std::string path = folder.at("super");
  Super super;
  REQUIRE(super.open(path).ok());
  REQUIRE(super.save(state_of(1)) == 0);
  REQUIRE(super.save(state_of(2)) == 0);
  const Bytes good = bytes_of(path);
  // Two saves after the first state in slot 0: the newest lies in slot 0 again.
  for (size_t bit = 0; bit < 4096 * 8; bit += 97) {
    Bytes bad = good;
    bad[bit / 8] = static_cast<uint8_t>(bad[bit / 8] ^ (1u << (bit % 8)));
    put_bytes(folder.at("bad"), bad);
    CHECK(same(reopened(folder.at("bad")), state_of(1)));
  }
}

TEST_CASE("super: without a whole slot it is refused") {
  const Scratch folder;
  const std::string path = folder.at("super");
  {
    Super super;
    REQUIRE(super.open(path).ok());
    REQUIRE(super.save(state_of(1)) == 0);
  }
  const Bytes good = bytes_of(path);
  Bytes bad = good;
  bad[100] ^= 1;
  bad[4096 + 100] ^= 1;
  const Bytes cases[] = {bad, Bytes(2 * 4096), Bytes(good.begin(), good.begin() + 4096), Bytes()};
  for (const Bytes& bytes : cases) {
    put_bytes(path, bytes);
    Super super;
    CHECK(super.open(path).error == EBADMSG);
  }
  // The slots changed places: a sequence belongs to one of them.
  Bytes swapped(good.begin() + 4096, good.end());
  swapped.insert(swapped.end(), good.begin(), good.begin() + 4096);
  put_bytes(path, swapped);
  Super super;
  CHECK(super.open(path).error == EBADMSG);
}

TEST_CASE("super: a save that fails changes nothing, and the next one may succeed") {
  const Scratch folder;
  const std::string path = folder.at("super");
  Super super;
  REQUIRE(super.open(path).ok());
  REQUIRE(super.save(state_of(1)) == 0);
  REQUIRE(super.save(state_of(2)) == 0);
  SuperState much = state_of(3);
  much.history_size = max_history + 1;
  CHECK(super.save(much) == EINVAL);
  // The next slot is the second: writing behind 4 KiB is refused by the limit on file sizes.
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit small{4096, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const int error = super.save(state_of(3));
  REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(error == EFBIG);
  CHECK(same(super.state(), state_of(2)));
  CHECK(same(reopened(path), state_of(2)));
  CHECK(super.save(state_of(4)) == 0);
  CHECK(same(reopened(path), state_of(4)));
}
