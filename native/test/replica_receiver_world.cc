#include <poll.h>

#include "test/replica_receiver.h"

namespace holdfast::replica::test {

bool FakeApplier::submit(Batch batch) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !held_ || dead_; });
  if (dead_) return false;
  std::span<const uint8_t> rest = batch.records;
  while (!rest.empty()) {
    Record record;
    if (parse_record(rest, record) != ParseStatus::ok) {
      wrong++;
      return false;
    }
    Tail before = point_.tail;
    if (records_.empty() && !began_) before.lsn = record.head.lsn - 1;
    if (record.head.lsn != before.lsn + 1) wrong++;
    if (record.head.lsn == fail_at) {
      dead_ = true;
      lock.unlock();
      receiver->apply_failed(EIO, "pwrite");
      return false;
    }
    began_ = true;
    point_.tail = tail_after(record.head);
    records_.emplace_back(rest.begin(), rest.begin() + record.head.size);
    rest = rest.subspan(record.head.size);
    if (!ended) replayed++;
  }
  if (batch.end.cursor % journal_block != 0 || batch.end.tail.lsn != point_.tail.lsn) wrong++;
  point_ = batch.end;
  receiver->applied(point_.tail.lsn);
  kept_.push_back(std::move(batch));
  while (kept_.size() > keep) kept_.pop_front();
  return true;
}

bool FakeApplier::end_replay() {
  ended = true;
  receiver->replayed(last());
  return true;
}

Result<JournalPoint> FakeApplier::checkpoint() {
  const std::lock_guard lock(mutex_);
  return Result<JournalPoint>::success(point_);
}

int FakeApplier::begin_resync(const JournalPoint& at) {
  const std::lock_guard lock(mutex_);
  point_ = at;
  return 0;
}

void FakeApplier::hold(bool on) {
  const std::lock_guard lock(mutex_);
  held_ = on;
  changed_.notify_all();
}

std::vector<Bytes> FakeApplier::records() {
  const std::lock_guard lock(mutex_);
  return records_;
}

Lsn FakeApplier::last() {
  const std::lock_guard lock(mutex_);
  return point_.tail.lsn;
}

Secondary::Secondary() {
  options.listen = "127.0.0.1:0";
  options.tls = Certificates::get().of("b");
  options.set[3] = 7;
  options.node = 2;
  options.journal = folder.at("journal");
  options.journal_bytes = min_journal;
  options.feed.checkpoint_ms = 60'000;
  Super made;
  REQUIRE(made.open(folder.at("super")).ok());
  SuperState state;
  state.state = DiskState::in_sync;
  state.epoch = 1;
  REQUIRE(made.save(state) == 0);
}

Result<bool> Secondary::start(const Faults* faults) {
  end();
  super = std::make_unique<Super>();
  REQUIRE(super->open(folder.at("super")).ok());
  applier = std::make_unique<FakeApplier>();
  receiver = std::make_unique<Receiver>(*super, events, *applier, faults);
  applier->receiver = receiver.get();
  return receiver->start(options);
}

void Secondary::end() {
  if (applier) {
    applier->keep = 0;
    applier->hold(false);
  }
  receiver.reset();
  applier.reset();
  super.reset();
}

SuperState Secondary::on_disk() const {
  Super opened;
  REQUIRE(opened.open(folder.at("super")).ok());
  return opened.state();
}

std::vector<Bytes> Secondary::in_journal() const {
  Journal journal;
  REQUIRE(journal.open(options.journal, options.journal_bytes).ok());
  std::vector<Bytes> found;
  const Result<JournalPoint> end =
      journal.recover(on_disk().checkpoint, [&](const Record&, std::span<const uint8_t> bytes) {
        found.emplace_back(bytes.begin(), bytes.end());
      });
  REQUIRE(end.ok());
  return found;
}

Caller::Caller(const Secondary& secondary, const std::string& certificate) : secondary_(secondary) {
  REQUIRE(identity_.open(Certificates::get().of(certificate)).ok());
  const int64_t until = boot_ns() + patience_ns;
  Result<Fd> socket = connect_to(secondary.address(), until, -1);
  REQUIRE(socket.ok());
  // The other side may refuse the certificate after this side has finished.
  channel.start(identity_, std::move(socket.value), TlsStream::Side::client, {}, until, -1);
}

HelloBody Caller::hello_of(uint64_t epoch, Lsn first, Lsn last) const {
  HelloBody hello{};
  hello.magic = stream_magic;
  hello.version = stream_version;
  std::memcpy(hello.set, secondary_.options.set, sizeof hello.set);
  hello.node = 1;
  hello.volumes = static_cast<uint32_t>(secondary_.options.volumes.size());
  hello.epoch = epoch;
  hello.first = first;
  hello.last = last;
  return hello;
}

Frame Caller::call(const HelloBody& hello) {
  channel.post(Frame::hello, hello);
  FrameHead head{};
  if (channel.await(head, boot_ns() + patience_ns, -1) != 0) return Frame{};
  const auto type = static_cast<Frame>(head.type);
  if (type == Frame::welcome) {
    const std::span<const uint8_t> body = channel.control();
    REQUIRE(body.size() >= sizeof welcome);
    std::memcpy(&welcome, body.data(), sizeof welcome);
    history.resize(welcome.history);
    REQUIRE(body.size() == sizeof welcome + history.size() * sizeof(EpochStart));
    if (!history.empty()) {
      std::memcpy(history.data(), body.data() + sizeof welcome, body.size() - sizeof welcome);
    }
  }
  if (type == Frame::refuse) CHECK(channel.body(refused));
  return type;
}

void Caller::send(const Bytes& records, Lsn barrier) {
  const int64_t until = boot_ns() + patience_ns;
  Io io = channel.send_records(records, barrier);
  while (io == Io::blocked && boot_ns() < until) {
    pollfd wait{channel.fd(), POLLOUT, 0};
    poll(&wait, 1, 1000);
    io = channel.flush();
  }
  CHECK(io == Io::done);
}

bool Caller::await(Frame type, int64_t patience) {
  const int64_t until = boot_ns() + patience;
  FrameHead head{};
  while (channel.await(head, until, -1) == 0) {
    const auto got = static_cast<Frame>(head.type);
    if (got == Frame::ack) CHECK(channel.body(ack));
    if (got == Frame::leave) CHECK(channel.body(left));
    if (got == type) return true;
  }
  return false;
}

bool Caller::await_durable(Lsn lsn, int64_t patience) {
  const int64_t until = boot_ns() + patience;
  while (ack.durable < lsn) {
    if (!await(Frame::ack, until - boot_ns())) return false;
  }
  return true;
}

bool Caller::await_received(Lsn lsn, int64_t patience) {
  const int64_t until = boot_ns() + patience;
  while (ack.received < lsn) {
    if (!await(Frame::ack, until - boot_ns())) return false;
  }
  return true;
}

bool Caller::await_closed() {
  const int64_t until = boot_ns() + patience_ns;
  FrameHead head{};
  int error = 0;
  while ((error = channel.await(head, until, -1)) == 0) {
    if (static_cast<Frame>(head.type) == Frame::leave) CHECK(channel.body(left));
  }
  channel.shut(ECONNRESET);
  return error != ETIMEDOUT;
}

}  // namespace holdfast::replica::test
