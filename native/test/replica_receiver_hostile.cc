#include <fcntl.h>

#include "test/replica_receiver.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

/** Who may call, and what happens to what is no stream. */
namespace {

uint32_t refusal_of(const Secondary& secondary, const std::function<void(HelloBody&)>& change) {
  Caller caller(secondary);
  HelloBody hello = caller.hello_of(1, 1, 1000);
  change(hello);
  const Frame answer = caller.call(hello);
  CHECK(answer != Frame::welcome);
  return answer == Frame::refuse ? caller.refused.reason : 0;
}

uint32_t number(Refusal refusal) {
  return static_cast<uint32_t>(refusal);
}

/** The stream's bytes changed: true when the receiver left the connection with what came before in
 * its journal, and nothing else. */
bool is_left(const std::function<void(Bytes&, Stream&)>& spoil) {
  Secondary secondary;
  REQUIRE(secondary.start().ok());
  Caller caller(secondary);
  REQUIRE(caller.call(3) == Frame::welcome);
  Stream stream;
  stream.epoch = 2;
  std::vector<Bytes> good;
  Bytes first;
  for (int i = 0; i < 3; i++) {
    good.push_back(stream.write(200));
    append(first, good.back());
  }
  Stream next = stream;
  Bytes bad = next.write(500);
  spoil(bad, stream);
  append(first, bad);
  caller.send(first, 4);
  const bool left =
      caller.await(Frame::leave) && caller.left.reason == static_cast<uint32_t>(Leave::protocol);
  CHECK(caller.await_closed());
  // It is not this copy's fault: it may call again, and goes on where it was.
  Caller again(secondary);
  REQUIRE(again.call(3, 1, 10) == Frame::welcome);
  CHECK(again.welcome.durable == 3);
  CHECK(again.welcome.chain == stream.tail.chain);
  CHECK(secondary.in_journal() == good);
  CHECK(secondary.receiver->status().protocol_errors > 0);
  return left;
}

void change_head(Bytes& bytes, const std::function<void(RecordHead&)>& change, const Tail& before) {
  RecordHead head;
  std::memcpy(&head, bytes.data(), sizeof head);
  change(head);
  head.chain = chain_of(before.chain, head);
  std::memcpy(bytes.data(), &head, sizeof head);
}

}  // namespace

TEST_CASE("receiver: who may not call is told why") {
  // Before the secondary, which looks at it until its end.
  const Fd directory(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  Secondary secondary;
  secondary.options.volumes = {directory.get()};
  REQUIRE(secondary.start().ok());
  CHECK(refusal_of(secondary, [](HelloBody& h) { h.set[0]++; }) == number(Refusal::set));
  CHECK(refusal_of(secondary, [](HelloBody& h) { h.version++; }) == number(Refusal::version));
  CHECK(refusal_of(secondary, [](HelloBody& h) { h.volumes = 2; }) == number(Refusal::volumes));
  CHECK(refusal_of(secondary, [](HelloBody& h) { h.epoch = 0; }) == number(Refusal::epoch));
  // No answer to who does not speak this language.
  CHECK(refusal_of(secondary, [](HelloBody& h) { h.magic++; }) == 0);
  Caller stranger(secondary, "x");
  CHECK(stranger.call() == Frame{});
  CHECK(secondary.receiver->status().connects == 0);
  CHECK(secondary.receiver->status().refusals == 4);
  Caller caller(secondary);
  CHECK(caller.call() == Frame::welcome);
}

TEST_CASE("receiver: it says where it is, whatever the caller has; who goes on elsewhere is none") {
  Secondary secondary;
  REQUIRE(secondary.start().ok());
  Stream stream;
  {
    Caller caller(secondary);
    REQUIRE(caller.call() == Frame::welcome);
    Bytes all;
    for (int i = 0; i < 5; i++) append(all, stream.write(10));
    caller.send(all, 5);
    REQUIRE(caller.await_durable(5));
  }
  Caller less(secondary);
  REQUIRE(less.call(1, 1, 4) == Frame::welcome);
  CHECK(less.welcome.durable == 5);
  CHECK(less.welcome.chain == stream.tail.chain);
  CHECK(less.welcome.state == static_cast<uint32_t>(DiskState::in_sync));
  Caller more(secondary);
  REQUIRE(more.call(1, 7, 9) == Frame::welcome);
  Stream other;
  other.tail = {6, 1, 77};
  more.send(other.write(10));
  CHECK(more.await(Frame::leave));
  CHECK(more.left.reason == static_cast<uint32_t>(Leave::protocol));
  CHECK(secondary.in_journal().size() == 5);
}

TEST_CASE("receiver: a copy that is unfit takes no records without a resync") {
  for (const DiskState state : {DiskState::none, DiskState::outdated, DiskState::failed}) {
    Secondary secondary;
    Super super;
    REQUIRE(super.open(secondary.folder.at("super")).ok());
    SuperState changed = super.state();
    changed.state = state;
    REQUIRE(super.save(changed) == 0);
    secondary.options.unfit = state != DiskState::failed;
    secondary.options.marks_lost = state == DiskState::failed;
    REQUIRE(secondary.start().ok());
    Caller caller(secondary);
    REQUIRE(caller.call() == Frame::welcome);
    CHECK(caller.welcome.state == static_cast<uint32_t>(state));
    const uint32_t flags = state == DiskState::failed ? uint32_t{welcome_marks_lost} : 0;
    CHECK(caller.welcome.flags == flags);
    Stream stream;
    caller.send(stream.write(100), 1);
    CHECK(caller.await(Frame::leave));
    CHECK(caller.left.reason == static_cast<uint32_t>(Leave::protocol));
    CHECK(secondary.in_journal().empty());
    CHECK(secondary.on_disk().state == state);
  }
}

TEST_CASE("receiver: a caller of the same or a later epoch takes over, an older one does not") {
  Secondary secondary;
  REQUIRE(secondary.start().ok());
  Stream stream;
  Caller first(secondary);
  REQUIRE(first.call(5) == Frame::welcome);
  CHECK(secondary.on_disk().epoch == 5);
  stream.epoch = 5;
  first.send(stream.write(100), 1);
  REQUIRE(first.await_durable(1));
  CHECK(refusal_of(secondary, [](HelloBody& h) { h.epoch = 4; }) == number(Refusal::epoch));
  first.send(stream.write(100), 2);
  CHECK(first.await_durable(2));  // it was not disturbed
  Caller second(secondary);
  REQUIRE(second.call(5) == Frame::welcome);
  CHECK(second.welcome.durable == 2);
  CHECK(first.await_closed());
  Caller third(secondary);
  REQUIRE(third.call(6) == Frame::welcome);
  CHECK(second.await_closed());
  CHECK(secondary.on_disk().epoch == 6);
  CHECK(secondary.on_disk().history_size == 1);  // it may refuse this copy yet
  stream.epoch = 6;
  third.sync(stream, 100);
  REQUIRE(third.await_durable(3));
  const SuperState state = secondary.on_disk();
  CHECK(state.epoch == 6);
  REQUIRE(state.history_size == 2);
  CHECK(state.history[1].epoch == 6);
  CHECK(state.history[1].first == 2);
  CHECK(state.history[1].primary == 1);
  // Also after a restart.
  REQUIRE(secondary.start().ok());
  CHECK(refusal_of(secondary, [](HelloBody& h) { h.epoch = 5; }) == number(Refusal::epoch));
}

TEST_CASE("receiver: what is no record, or does not follow, is not taken") {
  CHECK(is_left([](Bytes& bytes, Stream&) { bytes[60] ^= 1; }));
  CHECK(is_left([](Bytes& bytes, Stream&) { bytes[24] ^= 1; }));  // the chain
  CHECK(is_left([](Bytes& bytes, Stream&) { bytes.assign(bytes.size(), 0); }));
  CHECK(is_left([](Bytes& bytes, Stream&) { bytes.erase(bytes.end() - 8, bytes.end()); }));
  CHECK(is_left(
      [](Bytes& bytes, Stream&) { bytes.erase(bytes.begin() + sizeof(RecordHead), bytes.end()); }));
  CHECK(is_left([](Bytes& bytes, Stream& stream) {
    change_head(
        bytes, [](RecordHead& head) { head.lsn++; }, stream.tail);
  }));
  CHECK(is_left([](Bytes& bytes, Stream& stream) {
    change_head(
        bytes, [](RecordHead& head) { head.epoch = 1; }, stream.tail);
  }));
  // Of an epoch that the caller did not speak for.
  CHECK(is_left([](Bytes& bytes, Stream& stream) {
    change_head(
        bytes, [](RecordHead& head) { head.epoch = 4; }, stream.tail);
  }));
  // A pad is for rings.
  CHECK(is_left([](Bytes& bytes, Stream&) {
    RecordHead pad{};
    pad.size = sizeof pad;
    std::memcpy(bytes.data(), &pad, sizeof pad);
  }));
}

TEST_CASE("receiver: frames that a primary does not send") {
  Secondary secondary;
  REQUIRE(secondary.start().ok());
  const AckBody body{1, 1, 1};
  for (const Frame type : {Frame::hello, Frame::welcome, Frame::ack, Frame::space}) {
    Caller caller(secondary);
    REQUIRE(caller.call() == Frame::welcome);
    caller.channel.post(type, body);
    CHECK(caller.await(Frame::leave));
    CHECK(caller.left.reason == static_cast<uint32_t>(Leave::protocol));
  }
  {
    Caller caller(secondary);
    REQUIRE(caller.call() == Frame::welcome);
    caller.channel.post(Frame::barrier, BarrierBody{7});  // of what was never sent
    CHECK(caller.await(Frame::leave));
  }
  {
    Caller caller(secondary);
    REQUIRE(caller.call() == Frame::welcome);
    caller.channel.post(static_cast<Frame>(77), body);
    CHECK(caller.await_closed());
  }
  Caller caller(secondary);
  CHECK(caller.call() == Frame::welcome);
}

TEST_CASE("receiver: free space each second, by volume") {
  const Fd root(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const Fd memory(open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  Secondary secondary;
  secondary.options.volumes = {root.get(), memory.get()};
  REQUIRE(secondary.start().ok());
  Caller caller(secondary);
  REQUIRE(caller.call() == Frame::welcome);
  for (uint32_t i = 0; i < 4; i++) {
    REQUIRE(caller.await(Frame::space));
    SpaceBody space{};
    REQUIRE(caller.channel.body(space));
    CHECK(space.volume == i % 2);
    CHECK(space.block_size > 0);
    CHECK(space.blocks >= space.free_blocks);
  }
}

TEST_CASE("receiver: a cut connection is lost, and taken again afterwards") {
  Secondary secondary;
  REQUIRE(secondary.start().ok());
  Stream stream;
  Caller first(secondary);
  REQUIRE(first.call() == Frame::welcome);
  first.send(stream.write(5000));
  REQUIRE(first.await_durable(1));
  secondary.receiver->cut(50);
  CHECK(first.await_closed());
  CHECK(secondary.events.await("peer state=lost"));
  const int64_t until = boot_ns() + patience_ns;
  bool welcomed = false;
  while (!welcomed && boot_ns() < until) {
    Caller caller(secondary);
    welcomed = caller.call(1, 1, 1) == Frame::welcome && caller.welcome.durable == 1;
  }
  CHECK(welcomed);
}
