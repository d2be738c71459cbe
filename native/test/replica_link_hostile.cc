#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <random>

#include "replica_peer.h"

using namespace holdfast::replica;
using namespace holdfast::replica::test;
using holdfast::boot_ns;
using holdfast::Fd;
using holdfast::ns_per_s;

namespace {

/** Two channels that are connected to each other. */
struct Pair {
  TlsIdentity a, b;
  Channel client, server;

  Pair() {
    REQUIRE(a.open(Certificates::get().of("a")).ok());
    REQUIRE(b.open(Certificates::get().of("b")).ok());
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    const int64_t deadline = boot_ns() + 10 * ns_per_s;
    std::thread other([&] {
      CHECK(server.start(b, Fd(ends[1]), TlsStream::Side::server, {}, deadline, -1).ok());
    });
    CHECK(client.start(a, Fd(ends[0]), TlsStream::Side::client, {}, deadline, -1).ok());
    other.join();
  }
};

/** What a link makes of a peer that sends this after its welcome. */
void expect_protocol_error(const std::function<void(Channel&)>& send) {
  Peer peer;
  peer.instead = [&](Channel& channel) {
    send(channel);
    FrameHead head{};
    while (channel.await(head, boot_ns() + 10 * ns_per_s, -1) == 0) {
      uint8_t bytes[4096];
      size_t got = 0;
      while (channel.records_left() > 0 && channel.records(bytes, sizeof bytes, got) == Io::done) {
      }
      if (channel.records_left() > 0) return;
    }
  };
  Primary primary;
  REQUIRE(primary.link.start(primary.options(peer.address())).ok());
  const Lsn lsn = primary.add(100);
  Call sync;
  REQUIRE_FALSE(primary.link.sync(lsn, sync.waiter()));
  REQUIRE(peer.await_connection(2));
  CHECK(primary.link.status().protocol_errors >= 1);
  CHECK_FALSE(sync.called());
}

}  // namespace

TEST_CASE("hostile: frames that do not belong end the connection, counted") {
  expect_protocol_error([](Channel& channel) { channel.post(static_cast<Frame>(999)); });
  expect_protocol_error([](Channel& channel) { channel.post(static_cast<Frame>(0)); });
  expect_protocol_error([](Channel& channel) { channel.post(Frame::hello, HelloBody{}); });
  expect_protocol_error([](Channel& channel) { channel.post(Frame::barrier, BarrierBody{1}); });
  expect_protocol_error([](Channel& channel) { channel.post(Frame::ack, uint32_t{1}); });
  expect_protocol_error([](Channel& channel) { channel.post(Frame::ping, uint32_t{1}); });
  expect_protocol_error([](Channel& channel) { channel.post(Frame::leave); });
  const std::vector<uint8_t> bytes(512);
  expect_protocol_error([&](Channel& channel) { channel.send_records(bytes, 0); });
}

TEST_CASE("hostile: acknowledgements of what was not sent are not believed") {
  expect_protocol_error([](Channel& channel) { channel.post(Frame::ack, AckBody{9, 9, 9}); });
  expect_protocol_error([](Channel& channel) { channel.post(Frame::ack, AckBody{0, 1, 0}); });
  expect_protocol_error([](Channel& channel) { channel.post(Frame::ack, AckBody{0, 0, 1}); });
  expect_protocol_error([](Channel& channel) {
    SpaceBody space{};
    space.volume = 7;
    channel.post(Frame::space, space);
  });
}

TEST_CASE("hostile: sizes of frames are bounded before anything is read") {
  for (const FrameHead head : {FrameHead{static_cast<uint32_t>(Frame::ack), max_control + 1},
                               FrameHead{static_cast<uint32_t>(Frame::records), max_frame + 8},
                               FrameHead{static_cast<uint32_t>(Frame::records), 0xfffffff8},
                               FrameHead{static_cast<uint32_t>(Frame::records), 49},
                               FrameHead{static_cast<uint32_t>(Frame::records), 8},
                               FrameHead{static_cast<uint32_t>(Frame::records), 0},
                               FrameHead{static_cast<uint32_t>(last_frame) + 1, 0}}) {
    TlsIdentity a, b;
    REQUIRE(a.open(Certificates::get().of("a")).ok());
    REQUIRE(b.open(Certificates::get().of("b")).ok());
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    const int64_t deadline = boot_ns() + 10 * ns_per_s;
    TlsStream raw;
    std::thread other([&] {
      CHECK(raw.start(a, Fd(ends[0]), TlsStream::Side::client, {}, deadline, -1).ok());
      const iovec part{const_cast<FrameHead*>(&head), sizeof head};
      size_t taken = 0;
      CHECK(raw.write(&part, 1, taken) == Io::done);
    });
    Channel channel;
    CHECK(channel.start(b, Fd(ends[1]), TlsStream::Side::server, {}, deadline, -1).ok());
    FrameHead got{};
    CHECK(channel.await(got, deadline, -1) == EPROTO);
    CHECK(channel.error() == EPROTO);
    other.join();
  }
}

TEST_CASE("hostile: bytes that are not TLS, or were changed on the way, end it") {
  TlsIdentity b;
  REQUIRE(b.open(Certificates::get().of("b")).ok());
  std::mt19937_64 random(5);
  for (int round = 0; round < 50; round++) {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    const Fd other(ends[0]);
    std::vector<uint8_t> bytes(1 + random() % 2000);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    REQUIRE(write(other.get(), bytes.data(), bytes.size()) > 0);
    shutdown(other.get(), SHUT_WR);
    Channel channel;
    const auto started =
        channel.start(b, Fd(ends[1]), TlsStream::Side::server, {}, boot_ns() + ns_per_s, -1);
    CHECK_FALSE(started.ok());
  }
  // Garbage in the middle of a good connection.
  Pair pair;
  const uint8_t garbage[] = {0x17, 3,  3,  0,  20, 1,  2,  3,  4,  5,  6,  7, 8,
                             9,    10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20};
  REQUIRE(send(pair.client.fd(), garbage, sizeof garbage, 0) == sizeof garbage);
  FrameHead head{};
  CHECK(pair.server.await(head, boot_ns() + 10 * ns_per_s, -1) == EBADMSG);
}

TEST_CASE("hostile: random bytes inside TLS are frames or an error, never more") {
  TlsIdentity a, b;
  REQUIRE(a.open(Certificates::get().of("a")).ok());
  REQUIRE(b.open(Certificates::get().of("b")).ok());
  std::mt19937_64 random(11);
  for (int round = 0; round < 100; round++) {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    const int64_t deadline = boot_ns() + 10 * ns_per_s;
    std::vector<uint8_t> bytes(8 + random() % 5000);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    // Heads that get further than random ones.
    const FrameHead head{static_cast<uint32_t>(random() % 13),
                         static_cast<uint32_t>(random() % bytes.size())};
    std::memcpy(bytes.data(), &head, sizeof head);
    std::thread other([&] {
      TlsStream raw;
      CHECK(raw.start(a, Fd(ends[0]), TlsStream::Side::client, {}, deadline, -1).ok());
      const iovec part{bytes.data(), bytes.size()};
      size_t taken = 0;
      raw.write(&part, 1, taken);
    });
    Channel channel;
    CHECK(channel.start(b, Fd(ends[1]), TlsStream::Side::server, {}, deadline, -1).ok());
    FrameHead got{};
    int error = 0;
    while ((error = channel.await(got, deadline, -1)) == 0) {
      uint8_t body[512];
      size_t size = 0;
      while (channel.records_left() > 0 && channel.records(body, sizeof body, size) != Io::closed) {
      }
    }
    CHECK((error == EPROTO || error == ECONNRESET || error == EINVAL));
    other.join();
  }
}

TEST_CASE("tls: the keys are renewed while data flows both ways") {
  TlsIdentity a, b;
  REQUIRE(a.open(Certificates::get().of("a")).ok());
  REQUIRE(b.open(Certificates::get().of("b")).ok());
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  const int64_t deadline = boot_ns() + 10 * ns_per_s;
  TlsStream one, two;
  std::thread other(
      [&] { CHECK(two.start(b, Fd(ends[1]), TlsStream::Side::server, {}, deadline, -1).ok()); });
  CHECK(one.start(a, Fd(ends[0]), TlsStream::Side::client, {}, deadline, -1).ok());
  other.join();
  one.renew_key_after(3);
  two.renew_key_after(5);
  const auto transfer = [](TlsStream& from, TlsStream& to, uint8_t value) {
    std::vector<uint8_t> bytes(1 + value * 150u, value), got(bytes.size());
    const iovec part{bytes.data(), bytes.size()};
    size_t taken = 0;
    REQUIRE(from.write(&part, 1, taken) == Io::done);
    for (size_t at = 0, size = 0; at < got.size(); at += size) {
      Io io;
      while ((io = to.read(got.data() + at, got.size() - at, size)) == Io::blocked) {
      }
      REQUIRE(io == Io::done);
    }
    CHECK(got == bytes);
  };
  for (unsigned i = 0; i < 200; i++) {
    transfer(one, two, static_cast<uint8_t>(i));
    if (i % 2 == 0) transfer(two, one, static_cast<uint8_t>(i));
  }
}

TEST_CASE("hostile: a certificate of another cluster is not accepted, on either side") {
  Peer stranger("x");
  Primary primary;
  REQUIRE(primary.link.start(primary.options(stranger.address())).ok());
  CHECK(primary.events.await("peer state=refused reason=certificate"));
  CHECK(stranger.connections() == 0);

  Peer peer;
  Primary other;
  LinkOptions options = other.options(peer.address());
  options.tls = Certificates::get().of("x");  // believes in this cluster, is of another
  REQUIRE(other.link.start(options).ok());
  CHECK(other.events.await("peer state=refused"));
  CHECK(peer.connections() == 0);
}

TEST_CASE("hostile: TLS files that are none are refused by name") {
  TlsIdentity identity;
  TlsFiles files = Certificates::get().of("a");
  files.key = Certificates::get().of("b").key;
  auto opened = identity.open(files);
  CHECK(opened.error == EKEYREJECTED);
  CHECK(std::string(opened.call) == "key");
  files = Certificates::get().of("a");
  files.ca = "/nowhere";
  opened = identity.open(files);
  CHECK(opened.error == ENOENT);
  CHECK(std::string(opened.call) == "ca");
}

TEST_CASE("channel: frames of every size, both ways at once, against a slow reader") {
  Pair pair;
  constexpr size_t frames = 300;
  std::vector<uint8_t> source(2u << 20);
  std::mt19937_64 random(3);
  for (uint8_t& byte : source) byte = static_cast<uint8_t>(random());
  const auto size_of = [](size_t i) {
    return sizeof(RecordHead) + 8 * ((i * i * 977) % (i % 10 == 0 ? 200'000 : 3000));
  };
  const auto send_all = [&](Channel& channel) {
    for (size_t i = 0; i < frames; i++) {
      Io io = channel.send_records(std::span(source).first(size_of(i)), i % 3 == 0 ? i + 1 : 0);
      while (io == Io::blocked) {
        pollfd wait{channel.fd(), POLLOUT, 0};
        poll(&wait, 1, 1000);
        io = channel.flush();
      }
      REQUIRE(io == Io::done);
    }
  };
  const auto receive_all = [&](Channel& channel) {
    std::vector<uint8_t> bytes(source.size());
    for (size_t i = 0; i < frames; i++) {
      FrameHead head{};
      REQUIRE(channel.await(head, boot_ns() + 10 * ns_per_s, -1) == 0);
      REQUIRE(head.type == static_cast<uint32_t>(Frame::records));
      REQUIRE(head.size == size_of(i));
      size_t at = 0;
      while (channel.records_left() > 0) {
        size_t got = 0;
        const Io io = channel.records(bytes.data() + at, 7000, got);
        at += got;
        REQUIRE(io != Io::closed);
        if (io == Io::blocked) {
          pollfd wait{channel.fd(), POLLIN, 0};
          poll(&wait, 1, 1000);
        }
      }
      REQUIRE(
          std::equal(source.begin(), source.begin() + static_cast<ptrdiff_t>(at), bytes.begin()));
      if (i % 3 != 0) continue;
      REQUIRE(channel.await(head, boot_ns() + 10 * ns_per_s, -1) == 0);
      BarrierBody barrier{};
      REQUIRE(channel.body(barrier));
      CHECK(barrier.lsn == i + 1);
    }
  };
  std::thread threads[] = {std::thread([&] { send_all(pair.client); }),
                           std::thread([&] { send_all(pair.server); }),
                           std::thread([&] { receive_all(pair.client); }),
                           std::thread([&] { receive_all(pair.server); })};
  for (std::thread& thread : threads) thread.join();
  CHECK(pair.client.bytes_sent() == pair.server.bytes_received());
}

TEST_CASE("channel: one who never reads is bounded") {
  Pair pair;
  const std::vector<uint8_t> body(max_control);
  Io io = Io::done;
  for (int i = 0; i < 10'000 && io != Io::closed; i++) {
    io = pair.client.post(Frame::differs, body.data(), body.size());
  }
  CHECK(io == Io::closed);
  CHECK(pair.client.error() == ENOBUFS);
}
