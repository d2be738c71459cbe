#include <doctest/doctest.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <random>

#include "replica_peer.h"

using namespace holdfast::replica;
using namespace holdfast::replica::test;
using holdfast::boot_ns;
using holdfast::Fd;
using holdfast::ns_per_ms;
using holdfast::ns_per_s;

TEST_CASE("link: records arrive in order, and a sync is durable on the peer") {
  Peer peer;
  Primary primary;
  REQUIRE(primary.link.start(primary.options(peer.address())).ok());
  REQUIRE(primary.events.await("peer state=connected node=2"));
  for (const size_t size : {size_t{1}, size_t{100}, size_t{5000}, size_t{40'000}, max_data}) {
    const Lsn lsn = primary.add(size);
    CHECK(primary.sync(lsn) == 0);
    CHECK(peer.durable() >= lsn);
  }
  const LinkStatus status = primary.link.status();
  CHECK(status.connected);
  CHECK(status.durable == 5);
  CHECK(status.records_sent == 5);
  CHECK(status.syncs == 5);
  CHECK(status.sync_p50_ns > 0);
  CHECK(primary.link.stop(5000));
  CHECK(primary.ring.used() == 0);
  CHECK(peer.await_left());
  CHECK(peer.wrong() == 0);
}

TEST_CASE("link: what is pushed goes out without a sync") {
  Peer peer;
  Primary primary;
  REQUIRE(primary.link.start(primary.options(peer.address())).ok());
  REQUIRE(primary.events.await("peer state=connected"));
  const Lsn lsn = primary.add(100);
  primary.link.push();
  CHECK(peer.await_received(lsn));
  CHECK(peer.durable() == 0);
}

namespace {

struct Outcome {
  uint64_t early = 0;   // syncs that returned before the peer had it durably
  uint64_t failed = 0;  // syncs that returned an error
};

/** Three threads write, push and sync at random, while the link is cut and the peer crashes. */
Outcome storm(Peer& peer, Primary& primary, int writes) {
  std::atomic<uint64_t> early{0};
  std::atomic<uint64_t> failed{0};
  std::atomic<int> running{3};
  std::vector<std::thread> writers;
  for (unsigned seed = 0; seed < 3; seed++) {
    writers.emplace_back([&, seed] {
      std::mt19937_64 random(seed + 1);
      for (int i = 0; i < writes; i++) {
        const Lsn lsn = primary.add(1 + random() % (random() % 20 == 0 ? 300'000 : 6000));
        if (random() % 3 == 0) primary.link.push();
        if (random() % 5 == 0) {
          if (primary.sync(lsn) != 0) failed++;
          if (peer.durable() < lsn) early++;
        }
      }
      running--;
    });
  }
  std::mt19937_64 random(77);
  while (running.load() > 0) {
    // The moments are what is random here. Only what is connected is cut: otherwise a slow machine
    // would never get through a handshake.
    std::this_thread::sleep_for(std::chrono::milliseconds(1 + random() % 30));
    if (!primary.link.status().connected) continue;
    if (random() % 2 == 0) {
      primary.link.cut(static_cast<int64_t>(random() % 10));
    } else {
      peer.crash();
    }
    const uint64_t before = primary.link.status().acks;
    while (running.load() > 0 && primary.link.status().acks == before) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  for (std::thread& writer : writers) writer.join();
  return {early.load(), failed.load()};
}

}  // namespace

TEST_CASE("link: order and completeness over cuts and crashes, from several threads") {
  Peer peer;
  Primary primary;
  REQUIRE(primary.link.start(primary.options(peer.address())).ok());
  const Outcome outcome = storm(peer, primary, 1500);
  CHECK(outcome.early == 0);
  CHECK(outcome.failed == 0);
  CHECK(primary.sync(4500) == 0);
  CHECK(peer.durable() == 4500);
  CHECK(peer.wrong() == 0);
  CHECK(peer.connections() > 1);
  CHECK(primary.link.status().protocol_errors == 0);
}

TEST_CASE("link: a planted acknowledgement before the peer's is caught by the same storm") {
  Peer peer;
  Primary primary;
  primary.faults.ack_without_peer = true;
  REQUIRE(primary.link.start(primary.options(peer.address())).ok());
  CHECK(storm(peer, primary, 100).early > 0);
}

TEST_CASE("link: a worker that comes after another sends what the peer lacks") {
  Peer peer;
  Memory memory(min_ring);
  Scratch folder;
  EventList events;
  Primary shape;  // for its options only
  for (int worker = 0; worker < 3; worker++) {
    Super super;
    REQUIRE(super.open(folder.at("super")).ok());
    Ring ring(memory.shared(), memory.arena());
    REQUIRE(ring.intact());
    Link link(ring, super, events);
    REQUIRE(link.start(shape.options(peer.address())).ok());
    const uint8_t bytes[500] = {};
    const iovec part{const_cast<uint8_t*>(bytes), sizeof bytes};
    Lsn lsn = 0;
    for (int i = 0; i < 50; i++) {
      REQUIRE(link.reserve(record_size(sizeof bytes), {}));
      lsn = link.append(Kind::check, 0, 1, {&part, 1});
    }
    CHECK(lsn == static_cast<Lsn>(50 * (worker + 1)));
    if (worker == 1) continue;  // ends without a word
    Call call;
    if (!link.sync(lsn, call.waiter())) CHECK(call.await() == 0);
    CHECK(peer.durable() == lsn);
  }
  CHECK(peer.wrong() == 0);
}

TEST_CASE("link: a full ring turns away, and calls when there is room") {
  Peer peer;
  peer.deaf = true;
  Primary primary(min_ring);
  REQUIRE(primary.link.start(primary.options(peer.address())).ok());
  const size_t size = record_size(100'000);
  Call ready;
  uint64_t granted = 0;
  while (primary.link.reserve(size, ready.waiter())) {
    const std::vector<uint8_t> bytes(100'000);
    const iovec part{const_cast<uint8_t*>(bytes.data()), bytes.size()};
    primary.link.append(Kind::check, 0, 1, {&part, 1});
    primary.link.push();
    granted++;
  }
  CHECK(granted >= (min_ring - max_record) / size - 1);
  CHECK_FALSE(ready.called());
  CHECK(primary.link.status().reservers == 1);
  CHECK(primary.link.status().ring_full > 0);
  Call sync;
  CHECK_FALSE(primary.link.sync(primary.link.last(), sync.waiter()));
  CHECK_FALSE(sync.called());
  peer.deaf = false;
  CHECK(ready.await() == 0);
  CHECK(sync.await() == 0);
  CHECK(primary.sync(primary.add(100'000)) == 0);
  CHECK(peer.wrong() == 0);
}

TEST_CASE("link: a reservation given back lets another in") {
  Primary primary(min_ring);
  REQUIRE(primary.link.start(primary.options("127.0.0.1:1")).ok());
  const size_t size = record_size(1'000'000);
  Call ready;
  size_t granted = 0;
  while (primary.link.reserve(size, ready.waiter())) granted++;
  CHECK_FALSE(ready.called());
  while (granted-- > 0) primary.link.release(size);
  CHECK(ready.await() == 0);
}

TEST_CASE("link: policies: received is enough for second and for a receipt, not for none") {
  for (const bool second : {false, true}) {
    Peer peer;
    peer.acks = Peer::Acks::receipt_only;
    Primary primary;
    LinkOptions options = primary.options(peer.address());
    options.second = second;
    options.strict = true;
    REQUIRE(primary.link.start(options).ok());
    CHECK(primary.link.strict());
    const Lsn lsn = primary.add(200);
    Call receipt;
    if (!primary.link.receipt(lsn, receipt.waiter())) CHECK(receipt.await() == 0);
    Call sync;
    const bool at_once = primary.link.sync(lsn, sync.waiter());
    CHECK(at_once == second);
    if (at_once) continue;
    CHECK_FALSE(sync.called());
    peer.acks = Peer::Acks::at_barrier;
    CHECK(primary.sync(primary.add(1)) == 0);
    CHECK(sync.await() == 0);
  }
}

TEST_CASE("link: without a connection everything waits; alone is by the superblock only") {
  Primary primary;
  REQUIRE(primary.link.start(primary.options("127.0.0.1:1")).ok());
  const Lsn lsn = primary.add(100);
  Call sync, receipt;
  // What the superblock says at the moment of the acknowledgement is what counts.
  uint32_t required = 1;
  sync.then = [&] { required = primary.super.state().required_peer; };
  REQUIRE_FALSE(primary.link.sync(lsn, sync.waiter()));
  REQUIRE_FALSE(primary.link.receipt(lsn, receipt.waiter()));
  CHECK(primary.events.await("peer state=lost"));
  CHECK_FALSE(sync.called());
  CHECK(primary.link.alone(0) == EINVAL);
  CHECK_FALSE(sync.called());
  CHECK(primary.link.alone(2) == 0);
  CHECK(sync.await() == 0);
  CHECK(receipt.await() == 0);
  CHECK(required == 0);
  CHECK(primary.sync(primary.add(10)) == 0);
  CHECK(primary.ring.last().epoch == 2);
  // A ring full of what nobody fetches keeps nobody waiting.
  for (int i = 0; i < 40; i++) primary.add(max_data);
  CHECK(primary.events.count("peer state=lost") == 1);
  primary.link.stop(0);

  Super super;
  REQUIRE(super.open(primary.folder.at("super")).ok());
  CHECK(super.state().epoch == 2);
  CHECK(super.state().required_peer == 0);
  REQUIRE(super.state().history_size == 1);
  CHECK(super.state().history[0].first == lsn);
  CHECK(super.state().history[0].alone == 1);
}

TEST_CASE("link: alone beside a living peer: it gets nothing of the new epoch") {
  Peer peer;
  Primary primary;
  REQUIRE(primary.link.start(primary.options(peer.address())).ok());
  const Lsn lsn = primary.add(100);
  REQUIRE(primary.sync(lsn) == 0);
  CHECK(primary.link.alone(2) == 0);
  for (int i = 0; i < 100; i++) CHECK(primary.sync(primary.add(100)) == 0);
  primary.link.stop(0);
  CHECK(peer.durable() == lsn);
  CHECK(peer.connections() == 1);
  CHECK(peer.received() <= lsn);
}

TEST_CASE("link: a superblock that cannot be written releases nobody") {
  Primary primary;
  Super closed;  // never opened: every save fails
  Link link(primary.ring, closed, primary.events);
  REQUIRE(link.start(primary.options("127.0.0.1:1")).ok());
  const uint8_t byte = 1;
  const iovec part{const_cast<uint8_t*>(&byte), 1};
  REQUIRE(link.reserve(record_size(1), {}));
  const Lsn lsn = link.append(Kind::check, 0, 1, {&part, 1});
  Call sync;
  REQUIRE_FALSE(link.sync(lsn, sync.waiter()));
  CHECK(link.alone(2) != 0);
  CHECK_FALSE(link.status().alone);
  Call later;
  CHECK_FALSE(link.sync(lsn, later.waiter()));
  CHECK_FALSE(sync.called());
  link.stop(0);
  CHECK(sync.await() == EIO);
  CHECK(later.await() == EIO);
}

TEST_CASE("link: a peer that failed is left behind, one that only stopped is waited for") {
  Peer peer;
  peer.acks = Peer::Acks::none;
  Primary primary;
  REQUIRE(primary.link.start(primary.options(peer.address())).ok());
  REQUIRE(peer.await_connection(1));
  const Lsn lsn = primary.add(100);
  Call sync;
  REQUIRE_FALSE(primary.link.sync(lsn, sync.waiter()));
  const LeaveBody stop{0, static_cast<uint32_t>(Leave::stop), 0};
  peer.say(Frame::leave, &stop, sizeof stop);
  CHECK(primary.events.await("peer state=left reason=stop"));
  CHECK(primary.events.await("peer state=lost"));
  CHECK_FALSE(sync.called());
  CHECK(primary.super.state().required_peer == 1);

  REQUIRE(peer.await_connection(2));
  const LeaveBody failed{ENOSPC, static_cast<uint32_t>(Leave::journal), 0};
  peer.say(Frame::leave, &failed, sizeof failed);
  CHECK(primary.events.await("peer state=left reason=journal errno=28"));
  CHECK(sync.await() == 0);
  CHECK(primary.link.status().alone);
  primary.link.stop(0);
  CHECK(primary.super.state().required_peer == 0);
}

TEST_CASE("link: a peer with another history, or that refuses, gets nothing") {
  Peer peer;
  peer.welcome = [](WelcomeBody& body) { body.chain ^= 1; };
  Primary primary;
  REQUIRE(primary.link.start(primary.options(peer.address())).ok());
  primary.add(100);
  CHECK(primary.events.await("peer state=refused reason=history"));
  REQUIRE(peer.await_connection(3));
  CHECK(primary.events.count("peer state=refused") == 1);
  CHECK(primary.link.status().refusals >= 2);
  CHECK(peer.received() == 0);
  peer.refuse = static_cast<uint32_t>(Refusal::state);
  CHECK(primary.events.await("peer state=refused reason=state"));
  CHECK(primary.events.count("peer state=connected") == 0);
}

TEST_CASE("link: a cut lasts as long as was asked, and loses nothing") {
  Peer peer;
  Primary primary;
  REQUIRE(primary.link.start(primary.options(peer.address())).ok());
  REQUIRE(primary.events.await("peer state=connected"));
  const int64_t start = boot_ns();
  primary.link.cut(300);
  const Lsn lsn = primary.add(10);
  CHECK(primary.sync(lsn) == 0);
  CHECK(boot_ns() - start >= 300 * ns_per_ms);
  CHECK(primary.events.count("peer state=lost") == 1);
  CHECK(peer.durable() == lsn);
}

TEST_CASE("link: a silent peer is disconnected") {
  Peer peer;
  peer.instead = [](Channel& channel) {
    FrameHead head{};
    while (channel.await(head, boot_ns() + 10 * ns_per_s, -1) == 0) {
    }
  };
  Primary primary;
  LinkOptions options = primary.options(peer.address());
  options.send_timeout_ms = 300;
  REQUIRE(primary.link.start(options).ok());
  CHECK(peer.await_connection(2));
}

TEST_CASE("link: the peer's space is known by volume") {
  Peer peer;
  Primary primary;
  REQUIRE(primary.link.start(primary.options(peer.address())).ok());
  REQUIRE(peer.await_connection(1));
  uint64_t blocks = 0, free_blocks = 0, files = 0, free_files = 0;
  uint32_t block_size = 0;
  const auto known = [&](uint32_t volume) {
    return primary.link.peer_space(volume, blocks, free_blocks, block_size, files, free_files);
  };
  CHECK_FALSE(known(0));
  const SpaceBody space{1000, 500, 30, 20, 4096, 0};
  peer.say(Frame::space, &space, sizeof space);
  // What comes later on the stream proves that it was read.
  REQUIRE(primary.sync(primary.add(1)) == 0);
  REQUIRE(known(0));
  CHECK(free_blocks == 500);
  CHECK(free_files == 20);
  CHECK_FALSE(known(1));
  CHECK_FALSE(known(999));
}

TEST_CASE("link: a local failure is said once and is in the superblock") {
  Primary primary;
  REQUIRE(primary.link.start(primary.options("127.0.0.1:1")).ok());
  primary.link.local_failed(EIO, "fdatasync");
  primary.link.local_failed(EIO, "pwrite");
  CHECK(primary.events.count("local_failed errno=5 call=fdatasync") == 1);
  CHECK(primary.events.count("local_failed") == 1);
  CHECK(primary.super.state().state == DiskState::failed);
}
