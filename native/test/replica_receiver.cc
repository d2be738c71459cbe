#include "test/replica_receiver.h"

#include <sys/resource.h>

#include <csignal>

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

constexpr int64_t short_ns = 150 * ns_per_ms;

/** Sends records of 1 MiB until the journal has no room; LSN of the last that became durable. */
Lsn fill_journal(Secondary& secondary, Caller& caller, Stream& stream) {
  while (secondary.receiver->status().journal_full == 0) {
    caller.sync(stream, max_data - 4096);
    while (caller.ack.durable < stream.tail.lsn) {
      if (!caller.await(Frame::ack, short_ns) && secondary.receiver->status().journal_full > 0) {
        break;
      }
    }
  }
  return caller.ack.durable;
}

/** What is acknowledged while nothing can be written: LSNs beyond what the journal has. */
Lsn acknowledged_too_early(const Faults* faults) {
  Secondary secondary;
  REQUIRE(secondary.start(faults).ok());
  secondary.applier->hold(true);
  Caller caller(secondary);
  REQUIRE(caller.call() == Frame::welcome);
  Stream stream;
  fill_journal(secondary, caller, stream);
  caller.await_durable(stream.tail.lsn, short_ns);
  const std::vector<Bytes> found = secondary.in_journal();
  return caller.ack.durable - found.size();
}

}  // namespace

TEST_CASE("receiver: what it acknowledges is in the journal, and then applied") {
  Secondary secondary;
  REQUIRE(secondary.start().ok());
  Caller caller(secondary);
  REQUIRE(caller.call() == Frame::welcome);
  CHECK(caller.welcome.durable == 0);
  CHECK(caller.welcome.node == 2);
  Stream stream;
  std::vector<Bytes> sent;
  for (int i = 0; i < 50; i++) {
    Bytes batch;
    for (int k = 0; k < 1 + i % 4; k++) {
      sent.push_back(stream.write(1 + 731u * static_cast<size_t>(i)));
      append(batch, sent.back());
    }
    caller.send(batch, stream.tail.lsn);
    REQUIRE(caller.await_durable(stream.tail.lsn));
    if (i % 10 == 0) REQUIRE(secondary.in_journal() == sent);
  }
  const Result<Tail> tail = secondary.receiver->stop();
  REQUIRE(tail.ok());
  CHECK(tail.value.lsn == stream.tail.lsn);
  CHECK(tail.value.chain == stream.tail.chain);
  CHECK(secondary.applier->records() == sent);
  CHECK(secondary.applier->wrong == 0);
  CHECK(caller.await(Frame::leave));
  CHECK(caller.left.reason == static_cast<uint32_t>(Leave::stop));
  CHECK(caller.left.durable == stream.tail.lsn);
  const SuperState state = secondary.on_disk();
  CHECK(state.clean == 1);
  CHECK(state.checkpoint.tail.lsn == stream.tail.lsn);
}

TEST_CASE("receiver: records without a barrier become durable within the group's time") {
  Secondary secondary;
  REQUIRE(secondary.start().ok());
  Caller caller(secondary);
  REQUIRE(caller.call() == Frame::welcome);
  Stream stream;
  for (int i = 0; i < 5; i++) {
    caller.send(stream.write(10000));
    REQUIRE(caller.await_durable(stream.tail.lsn));
  }
  CHECK(secondary.receiver->status().barriers == 0);
  // A barrier for what is durable already is answered all the same.
  const uint64_t before = secondary.receiver->status().writes;
  caller.send({}, stream.tail.lsn);
  CHECK(caller.await(Frame::ack));
  CHECK(secondary.receiver->status().writes == before);
}

TEST_CASE("receiver: barriers that come together are served by few writes") {
  Secondary secondary;
  REQUIRE(secondary.start().ok());
  Caller caller(secondary);
  REQUIRE(caller.call() == Frame::welcome);
  // All in one TLS record: the receiver finds all of it readable at once.
  Stream stream;
  Bytes all;
  for (int i = 0; i < 100; i++) append(all, stream.write(20));
  caller.send(all, stream.tail.lsn);
  REQUIRE(caller.await_durable(stream.tail.lsn));
  CHECK(secondary.receiver->status().writes == 1);
}

TEST_CASE("receiver: the journal is full until the applier has a checkpoint") {
  Secondary secondary;
  REQUIRE(secondary.start().ok());
  secondary.applier->hold(true);
  Caller caller(secondary);
  REQUIRE(caller.call() == Frame::welcome);
  Stream stream;
  fill_journal(secondary, caller, stream);
  CHECK(caller.ack.durable < stream.tail.lsn);
  CHECK(secondary.receiver->status().journal_full > 0);
  secondary.applier->hold(false);
  CHECK(caller.await_durable(stream.tail.lsn));
  for (int i = 0; i < 40; i++) {
    caller.sync(stream, max_data);
    REQUIRE(caller.await_durable(stream.tail.lsn));
  }
  REQUIRE(secondary.receiver->promote().ok());
  CHECK(secondary.applier->last() == stream.tail.lsn);
  CHECK(secondary.applier->wrong == 0);
  CHECK(secondary.receiver->status().checkpoints > 1);
}

TEST_CASE("receiver: nothing is acknowledged before it is durable, and the planted bug is caught") {
  CHECK(acknowledged_too_early(nullptr) == 0);
  Faults faults;
  faults.ack_before_durable = true;
  CHECK(acknowledged_too_early(&faults) > 0);
}

TEST_CASE("receiver: receipts are acknowledged at once where they are wanted") {
  for (const bool wanted : {true, false}) {
    Secondary secondary;
    REQUIRE(secondary.start().ok());
    secondary.applier->hold(true);
    Caller caller(secondary);
    HelloBody hello = caller.hello_of(1, 1, 1u << 20);
    if (wanted) hello.flags = hello_receipts;
    REQUIRE(caller.call(hello) == Frame::welcome);
    Stream stream;
    fill_journal(secondary, caller, stream);
    CHECK(caller.await_received(stream.tail.lsn, wanted ? patience_ns : short_ns) == wanted);
    CHECK(caller.ack.durable < stream.tail.lsn);
  }
}

TEST_CASE("receiver: what was received when the connection ends is written all the same") {
  Secondary secondary;
  secondary.options.group_ms = 600'000;
  REQUIRE(secondary.start().ok());
  Stream stream;
  const Bytes record = stream.write(5000);
  {
    Caller caller(secondary);
    HelloBody hello = caller.hello_of(1, 1, 10);
    hello.flags = hello_receipts;
    REQUIRE(caller.call(hello) == Frame::welcome);
    caller.send(record);
    REQUIRE(caller.await_received(1));
    CHECK(caller.ack.durable == 0);
  }
  REQUIRE(secondary.events.await("peer state=lost"));
  // The next caller is welcomed behind it.
  Caller caller(secondary);
  REQUIRE(caller.call(1, 1, 10) == Frame::welcome);
  CHECK(caller.welcome.durable == 1);
  CHECK(secondary.in_journal() == std::vector<Bytes>{record});
}

TEST_CASE("receiver: what the applier cannot keep up with it gets from the journal") {
  Secondary secondary;
  secondary.options.journal_bytes = 4 * min_journal;
  REQUIRE(secondary.start().ok());
  secondary.applier->hold(true);
  secondary.applier->keep = 3;
  Caller caller(secondary);
  REQUIRE(caller.call() == Frame::welcome);
  Stream stream;
  std::vector<Bytes> sent;
  for (int i = 0; i < 400; i++) {
    sent.push_back(stream.write(i % 7 == 0 ? 300'000 : 9'000));
    caller.send(sent.back(), stream.tail.lsn);
    REQUIRE(caller.await_durable(stream.tail.lsn));
    if (i == 300) secondary.applier->hold(false);
  }
  REQUIRE(secondary.receiver->promote().ok());
  CHECK(secondary.applier->records() == sent);
  CHECK(secondary.applier->wrong == 0);
  CHECK(secondary.receiver->status().read_back_bytes > 0);
}

TEST_CASE("receiver: killed, it finds again all that it acknowledged, and has it applied") {
  Secondary secondary;
  REQUIRE(secondary.start().ok());
  std::vector<Bytes> sent;
  Stream stream;
  for (int life = 0; life < 6; life++) {
    if (life % 2 == 1) secondary.applier->hold(true);
    Caller caller(secondary);
    REQUIRE(caller.call(1, 1, stream.tail.lsn) == Frame::welcome);
    CHECK(caller.welcome.durable == stream.tail.lsn);
    CHECK(caller.welcome.chain == stream.tail.chain);
    for (int i = 0; i < 20; i++) {
      sent.push_back(stream.write(5000));
      caller.send(sent.back(), stream.tail.lsn);
    }
    REQUIRE(caller.await_durable(stream.tail.lsn));
    // It was reachable and acknowledged whether or not the replay went on.
    REQUIRE(secondary.start().ok());
    REQUIRE(secondary.events.await("applied_to_end lsn=" + std::to_string(stream.tail.lsn)));
    CHECK(secondary.applier->wrong == 0);
    const std::vector<Bytes> applied = secondary.applier->records();
    REQUIRE(applied.size() <= sent.size());
    CHECK(std::equal(applied.rbegin(), applied.rend(), sent.rbegin()));
    CHECK(secondary.applier->replayed == applied.size());
  }
}

TEST_CASE("receiver: takes connections and acknowledges while a replay is under way") {
  Secondary secondary;
  Stream stream;
  {
    REQUIRE(secondary.start().ok());
    secondary.applier->hold(true);
    Caller caller(secondary);
    REQUIRE(caller.call() == Frame::welcome);
    caller.send(stream.write(100), 1);
    REQUIRE(caller.await_durable(1));
  }
  secondary.end();
  // The applier is held from before the receiver starts.
  secondary.super = std::make_unique<Super>();
  REQUIRE(secondary.super->open(secondary.folder.at("super")).ok());
  secondary.applier = std::make_unique<FakeApplier>();
  secondary.applier->hold(true);
  secondary.receiver =
      std::make_unique<Receiver>(*secondary.super, secondary.events, *secondary.applier);
  secondary.applier->receiver = secondary.receiver.get();
  REQUIRE(secondary.receiver->start(secondary.options).ok());
  Caller caller(secondary);
  REQUIRE(caller.call(1, 2, 1) == Frame::welcome);
  caller.send(stream.write(100), 2);
  CHECK(caller.await_durable(2));
  CHECK(secondary.receiver->status().replaying);
  CHECK(secondary.applier->last() == 0);
  secondary.applier->hold(false);
  REQUIRE(secondary.receiver->promote().ok());
  CHECK(secondary.applier->replayed == 1);
  CHECK(secondary.applier->last() == 2);
  CHECK_FALSE(secondary.receiver->status().replaying);
}

TEST_CASE("receiver: a change that cannot be applied ends this copy") {
  Secondary secondary;
  REQUIRE(secondary.start().ok());
  secondary.applier->fail_at = 3;
  Stream stream;
  {
    Caller caller(secondary);
    REQUIRE(caller.call() == Frame::welcome);
    Bytes all;
    for (int i = 0; i < 5; i++) append(all, stream.write(100));
    caller.send(all, stream.tail.lsn);
    REQUIRE(caller.await(Frame::leave));
    CHECK(caller.left.error == EIO);
    CHECK(caller.left.reason == static_cast<uint32_t>(Leave::apply));
    CHECK(caller.left.durable == stream.tail.lsn);
    CHECK(caller.await_closed());
  }
  CHECK(secondary.events.await("local_failed errno=5 call=pwrite"));
  CHECK(secondary.on_disk().state == DiskState::failed);
  Caller again(secondary);
  CHECK(again.call(1, 1, 5) == Frame::refuse);
  CHECK(again.refused.reason == static_cast<uint32_t>(Refusal::state));
  CHECK(secondary.receiver->promote().error == EIO);
  // A new process knows it too.
  REQUIRE(secondary.start().ok());
  Caller later(secondary);
  CHECK(later.call(1, 1, 5) == Frame::welcome);
  CHECK(later.welcome.state == static_cast<uint32_t>(DiskState::failed));
}

TEST_CASE("receiver: a journal that cannot be written ends this copy") {
  Secondary secondary;
  REQUIRE(secondary.start().ok());
  Caller caller(secondary);
  REQUIRE(caller.call() == Frame::welcome);
  Stream stream;
  caller.send(stream.write(100), 1);
  REQUIRE(caller.await_durable(1));
  // No file may grow beyond, or be written behind, the superblock's two blocks.
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit small{2 * 4096, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  caller.send(stream.write(20000), 2);
  const bool left = caller.await(Frame::leave);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  REQUIRE(left);
  CHECK(caller.left.error == EFBIG);
  CHECK(caller.left.reason == static_cast<uint32_t>(Leave::journal));
  CHECK(caller.left.durable == 1);
  CHECK(caller.ack.durable == 1);
  CHECK(secondary.on_disk().state == DiskState::failed);
  CHECK(secondary.events.count("local_failed errno=27 call=journal") == 1);
}

TEST_CASE("receiver: settings and files that cannot be") {
  Secondary secondary;
  secondary.options.journal_bytes = min_journal / 2;
  CHECK(secondary.start().error == EINVAL);
  secondary.options.journal_bytes = min_journal;
  secondary.options.tls.ca = "/nowhere";
  CHECK(secondary.start().error == ENOENT);
  secondary.options.tls = Certificates::get().of("b");
  REQUIRE(secondary.start().ok());
  {
    Caller caller(secondary);
    REQUIRE(caller.call() == Frame::welcome);
    Stream stream;
    caller.send(stream.write(100), 1);
    REQUIRE(caller.await_durable(1));
  }
  REQUIRE(secondary.receiver->stop().ok());
  secondary.end();
  // The journal that the superblock speaks of is gone: what it acknowledged may be gone with it.
  REQUIRE(unlink(secondary.options.journal.c_str()) == 0);
  CHECK(secondary.start().error == EBADMSG);
  // A new beginning after a full copy is another matter.
  const Tail fresh{10, 2, 30};
  secondary.options.fresh = &fresh;
  REQUIRE(secondary.start().ok());
  secondary.options.fresh = nullptr;
  Caller caller(secondary);
  REQUIRE(caller.call(2, 11, 10) == Frame::welcome);
  CHECK(caller.welcome.durable == 10);
  CHECK(caller.welcome.epoch == 2);
  CHECK(caller.welcome.chain == 30);
}

TEST_CASE("receiver: a link syncs through it, over cuts") {
  Secondary secondary;
  REQUIRE(secondary.start().ok());
  Primary primary;
  LinkOptions options = primary.options(secondary.address());
  std::memcpy(options.set, secondary.options.set, sizeof options.set);
  options.volumes = 0;
  REQUIRE(primary.link.start(options).ok());
  for (int i = 0; i < 40; i++) {
    const Lsn lsn = primary.add(100 + 997u * static_cast<size_t>(i));
    if (i % 10 == 5) secondary.receiver->cut(1);
    if (i % 10 == 8) primary.link.cut(1);
    if (i % 3 == 0) REQUIRE(primary.sync(lsn) == 0);
  }
  REQUIRE(primary.sync(primary.link.last()) == 0);
  CHECK(primary.link.stop(5000));
  CHECK(secondary.events.await("peer state=left"));
  REQUIRE(secondary.receiver->stop().ok());
  CHECK(secondary.applier->last() == 40);
  CHECK(secondary.applier->wrong == 0);
  CHECK(secondary.receiver->status().protocol_errors == 0);
}
