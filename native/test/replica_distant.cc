#include <doctest/doctest.h>

#include "replica/fanout.h"
#include "replica_files.h"
#include "replica_peer.h"

// The link of a distant copy: what it does instead of letting anybody wait.

using namespace holdfast::replica;
using namespace holdfast::replica::test;
using holdfast::boot_ns;
using holdfast::ns_per_ms;
using holdfast::ns_per_s;

namespace {

constexpr Lsn beginning = Lsn{1} << 41;

/** A primary's link to a distant copy. */
struct Far {
  explicit Far(uint64_t ring_size = 2 * min_ring) : primary(ring_size) {
    SuperState state;
    state.node = 1;
    state.state = DiskState::in_sync;
    state.epoch = 1;
    state.required_peer = 0;
    state.role = 1;
    state.last = {beginning, 0, 77};
    state.base.lsn = beginning;
    add_epoch(state, {1, beginning, 1, 0});
    REQUIRE(primary.super.save(state) == 0);
    primary.ring.reset(state.last);
  }
  LinkOptions options(const std::string& peer) {
    LinkOptions out = primary.options(peer);
    out.distant = true;
    out.rejoining = &files;
    out.note_ms = 10;
    out.marks_wait = [] { return true; };
    out.compare_streams = [this] { link().reached(main); };
    out.peer_has = [this](Lsn lsn) { told = lsn; };
    return out;
  }
  void start(const std::string& peer) {
    REQUIRE(link().start(options(peer)).ok());
    link().serving();
  }
  /** One that has what the stream had at its beginning. */
  static void follow(Peer& peer) {
    peer.acks = Peer::Acks::at_once;
    peer.begin({beginning, 0, 77}, {{1, beginning, 1, 0}});
  }
  void offer(size_t size = 65'536) {
    static const std::vector<uint8_t> bytes(max_data, 0x42);
    const iovec part{const_cast<uint8_t*>(bytes.data()), size};
    link().offer(Kind::check, 0, 1, {&part, 1}, ++main);
    link().push();
  }
  void offer_all(uint64_t bytes) {
    for (uint64_t done = 0; done < bytes; done += 65'536) offer();
  }
  Link& link() { return primary.link; }
  LinkStatus status() { return link().status(); }
  template <typename There>
  bool await(There there) {
    for (const int64_t until = boot_ns() + 60 * ns_per_s; boot_ns() < until;) {
      if (there()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  bool await_all() {
    return await([&] { return status().in_sync && status().durable == status().last; });
  }

  Files files;
  std::atomic<Lsn> main{0}, told{0};
  Primary primary;
};

}  // namespace

TEST_CASE("distant: it follows, acknowledges to nobody, and says how far behind it is") {
  Peer peer;
  Far far;
  Far::follow(peer);
  far.start(peer.address());
  REQUIRE(far.primary.events.await("peer state=connected"));
  CHECK(far.files.follows_.load());
  far.offer_all(1 << 20);
  REQUIRE(far.await_all());
  CHECK(peer.wrong() == 0);
  CHECK(peer.resyncs() == 0);
  CHECK(far.status().lag_ns == 0);
  CHECK(far.status().diverted == 0);
  // Without a connection it grows.
  far.link().cut(100'000);
  far.offer();
  CHECK(far.await([&] { return far.status().lag_ns > 20 * ns_per_ms; }));
  CHECK(far.status().ring_used > 65'536);
  far.link().cut(0);
  REQUIRE(far.await_all());
  CHECK(far.status().lag_ns == 0);
  CHECK(peer.wrong() == 0);
}

TEST_CASE("distant: the superblock says what it has, and then the marks may know") {
  Peer peer;
  Far far;
  Far::follow(peer);
  far.start(peer.address());
  far.offer_all(1 << 20);
  const Lsn last = far.status().last;
  REQUIRE(far.await([&] { return far.told.load() == far.main.load(); }));
  far.link().stop(0);
  const SuperState& state = far.primary.super.state();
  CHECK(state.base.lsn == last);
  CHECK(state.base_state == 0);
  CHECK(state.required_peer == 0);
  CHECK(state.last.lsn == last);
  REQUIRE(state.history_size == 1);
  CHECK(state.history[0].alone == 0);
}

TEST_CASE("distant: nothing waits for one that is not there, and the oldest is dirty") {
  Far far;
  far.start("127.0.0.1:1");
  far.offer_all(64 << 20);
  REQUIRE(far.await([&] { return !far.files.follows_.load(); }));
  far.offer_all(64 << 20);
  CHECK(far.status().diverted > 0);
  CHECK(far.status().lag_ns > 0);
  CHECK_FALSE(far.files.dirty().empty());
  CHECK(far.primary.events.await("peer state=lost"));
  CHECK(far.link().need_not_wait());
  const int64_t began = boot_ns();
  far.link().stop(0);
  CHECK(boot_ns() - began < ns_per_s);
  Lsn since = 0;
  CHECK_FALSE(far.link().settle(since));
  CHECK(since == beginning);
  CHECK(far.primary.super.state().base_state == 1);
}

TEST_CASE("distant: one that takes nothing is left, and comes back by a resync") {
  Peer peer;
  Far far;
  Far::follow(peer);
  far.start(peer.address());
  far.offer_all(1 << 20);
  REQUIRE(far.await_all());
  peer.deaf = true;
  far.offer_all(64 << 20);
  CHECK(far.status().diverted > 0);
  REQUIRE(far.await([&] { return !far.files.follows_.load(); }));
  CHECK(far.primary.super.state().base_state == 1);
  far.files.states_ = false;
  peer.deaf = false;
  REQUIRE(far.await([&] { return far.files.starts_.load() > 0; }));
  CHECK(peer.resync().rejoin == static_cast<uint32_t>(Rejoin::dirty));
  CHECK(far.status().run != 0);
  CHECK(far.status().lag_ns > 0);
  far.files.whole_();
  REQUIRE(far.primary.events.await("insync"));
  REQUIRE(far.await_all());
  REQUIRE(far.await([&] { return far.files.follows_.load(); }));
  CHECK(peer.wrong() == 0);
  far.offer_all(1 << 20);
  REQUIRE(far.await_all());
  CHECK(peer.wrong() == 0);
  REQUIRE(far.await([&] { return far.told.load() == far.main.load(); }));
  far.link().stop(0);
  CHECK(far.primary.super.state().base_state == 0);
}

TEST_CASE("distant: one that has the last record before a gap has not all") {
  Peer peer;
  Far far;
  Far::follow(peer);
  peer.acks = Peer::Acks::silent;
  far.start(peer.address());
  far.offer_all(1 << 20);
  const Lsn had = far.status().last;
  REQUIRE(peer.await_received(had));
  // Nothing is acknowledged, so the ring is full in the end; all that it has arrives.
  far.offer_all(64 << 20);
  peer.acks = Peer::Acks::at_once;
  REQUIRE(far.await([&] {
    far.offer(64);
    return far.primary.events.count("insync") > 0;
  }));
  CHECK(peer.resync().rejoin == static_cast<uint32_t>(Rejoin::dirty));
  CHECK(peer.resync().lsn > had);
  CHECK_FALSE(far.files.stated().empty());
  CHECK(peer.wrong() == 0);
}

TEST_CASE("distant: in a run a record that finds no room is one more to state") {
  Peer peer;
  Far far;
  Far::follow(peer);
  far.start(peer.address());
  REQUIRE(far.primary.events.await("peer state=connected"));
  far.files.states_ = false;
  peer.deaf = true;
  far.offer_all(64 << 20);
  REQUIRE(far.await([&] { return !far.files.follows_.load(); }));
  peer.deaf = false;
  REQUIRE(far.await([&] { return far.files.starts_.load() > 0; }));
  const uint64_t connections = peer.connections();
  const uint64_t before = far.status().diverted;
  peer.acks = Peer::Acks::none;
  far.offer_all(32 << 20);
  CHECK(far.status().diverted > before);
  CHECK_FALSE(far.files.nothing_dirty());
  // All that there was is stated: but not what was diverted since.
  far.files.whole_();
  peer.acks = Peer::Acks::at_once;
  far.offer(64);
  REQUIRE(far.await([&] { return far.files.starts_.load() > 1; }));
  CHECK_FALSE(far.status().in_sync);
  far.files.states_ = true;
  far.files.whole_();
  REQUIRE(far.primary.events.await("insync"));
  CHECK(peer.connections() == connections);
  CHECK(peer.wrong() == 0);
  CHECK(far.files.dirty().empty());
}

TEST_CASE("distant: another server's copy is compared, one that went on by itself is refused") {
  Peer peer;
  Far far;
  peer.acks = Peer::Acks::at_once;
  peer.begin({500, 7, 3}, {{7, 100, 5, 0}});
  far.start(peer.address());
  REQUIRE(far.primary.events.await("insync"));
  CHECK(peer.resync().rejoin == static_cast<uint32_t>(Rejoin::compare));
  CHECK(far.files.compares_.load() == 1);

  Peer other;
  Far second;
  other.acks = Peer::Acks::at_once;
  other.begin({500, 7, 3}, {{1, beginning, 1, 0}, {7, 100, 2, 1}});
  second.start(other.address());
  REQUIRE(second.primary.events.await("peer state=refused reason=fork"));
  CHECK(second.await([&] { return std::string(second.status().refused) == "fork"; }));
  CHECK(other.resyncs() == 0);
}

TEST_CASE("distant: an epoch begins in its stream too, and the copy hears of it first") {
  Peer peer;
  Far far;
  Far::follow(peer);
  far.start(peer.address());
  far.offer_all(1 << 20);
  REQUIRE(far.await_all());
  const Lsn before = far.status().last;
  REQUIRE(far.link().begin_epoch(4) == 0);
  REQUIRE(far.link().begin_epoch(4) == 0);
  far.offer_all(1 << 20);
  REQUIRE(far.await_all());
  CHECK(peer.connections() == 2);
  CHECK(peer.resyncs() == 0);
  CHECK(peer.wrong() == 0);
  far.link().stop(0);
  const SuperState& state = far.primary.super.state();
  CHECK(state.epoch == 4);
  REQUIRE(state.history_size == 2);
  CHECK(state.history[1].first == before);
  CHECK(state.history[1].alone == 0);
}

TEST_CASE("distant: stopped in order, what it lacks is dirty, and it stops at once") {
  Peer peer;
  Far far;
  Far::follow(peer);
  far.start(peer.address());
  far.offer_all(1 << 20);
  REQUIRE(far.await_all());
  const Lsn had = far.status().durable;
  peer.deaf = true;
  far.offer_all(64 << 20);
  const int64_t began = boot_ns();
  far.link().begin_stop();
  far.link().stop(0);
  CHECK(boot_ns() - began < 2 * ns_per_s);
  Lsn since = 0;
  CHECK_FALSE(far.link().settle(since));
  CHECK(since >= had);
  const std::set<Lsn> dirty = far.files.dirty();
  CHECK(dirty.contains(1));  // diverted
  CHECK(dirty.contains(since + 1));
}

TEST_CASE("distant: a planted bug that forgets what is diverted is seen") {
  Far far;
  far.primary.faults.divert_forgets = true;
  far.start("127.0.0.1:1");
  far.offer_all(64 << 20);
  CHECK(far.status().diverted > 0);
  CHECK_FALSE(far.files.dirty().contains(1));
}

TEST_CASE("distant: changes have one order in all streams, and the main link alone is waited for") {
  Peer near, away;
  Primary primary;
  SuperState state = primary.super.state();
  state.epoch = 1;
  state.state = DiskState::in_sync;
  add_epoch(state, {1, 0, 1, 0});
  REQUIRE(primary.super.save(state) == 0);
  Far far;
  Far::follow(away);
  std::vector<uint64_t> main_order, far_order;
  std::mutex mutex;
  const auto note = [&mutex](std::vector<uint64_t>& to) {
    return [&to, &mutex](const Record& record, bool) {
      const std::lock_guard lock(mutex);
      to.push_back(record.head.file);
    };
  };
  near.acks = Peer::Acks::at_once;
  near.taken = note(main_order);
  away.taken = note(far_order);
  REQUIRE(primary.link.start(primary.options(near.address())).ok());
  far.start(away.address());
  Fanout fanout(primary.link, {&far.link()});
  constexpr int threads = 4, each = 500;
  std::vector<std::thread> all;
  for (int t = 0; t < threads; t++) {
    all.emplace_back([&fanout, t] {
      uint8_t bytes[64] = {};
      const iovec part{bytes, sizeof bytes};
      for (int i = 0; i < each; i++) {
        Call ready;
        if (!fanout.reserve(record_size(sizeof bytes), ready.waiter())) REQUIRE(ready.await() == 0);
        fanout.append(Kind::check, 0, FileId(1 + t * each + i), {&part, 1});
        fanout.push();
      }
    });
  }
  for (std::thread& one : all) one.join();
  Call call;
  CHECK((fanout.sync(fanout.last(), call.waiter()) || call.await() == 0));
  fanout.compare_streams();
  REQUIRE(far.await_all());
  REQUIRE(far.await([&] {
    const std::lock_guard lock(mutex);
    return main_order.size() == threads * each && far_order.size() == main_order.size();
  }));
  CHECK(main_order == far_order);
  far.link().stop(0);
  primary.link.stop(1000);
}
