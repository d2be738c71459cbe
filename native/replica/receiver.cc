#include "replica/receiver.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "common/clock.h"

namespace holdfast::replica {
namespace {

// A caller has this long to shake hands and to say who it is; the next one waits meanwhile.
constexpr int64_t hear_ns = 2 * ns_per_s;

uint16_t port_of(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  // The port lies at the same place for both families.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

void ring_bell(const Fd& bell) {
  const uint64_t one = 1;
  // It fails only when it is already rung more often than a number can say.
  if (write(bell.get(), &one, sizeof one) < 0) return;
}

}  // namespace

Receiver::Receiver(Super& super, Events& events, ApplyTarget& target, const Faults* faults)
    : super_(super),
      events_(events),
      target_(target),
      faults_(faults),
      journal_(faults),
      feed_(journal_, target,
            FeedHooks{[this](const JournalPoint& point) { return save_checkpoint(point); },
                      [this] { wake(); }}),
      intake_(journal_, feed_) {}

Receiver::~Receiver() {
  stopping_ = true;
  if (end_.valid()) ring_bell(end_);
  if (acceptor_.joinable()) acceptor_.join();
  if (thread_.joinable()) thread_.join();
  feed_.stop();  // it rings the bell
}

Result<bool> Receiver::start(const ReceiverOptions& options) {
  using Outcome = Result<bool>;
  options_ = options;
  options_.fresh = nullptr;
  const Result<bool> tls = identity_.open(options.tls);
  if (!tls.ok()) return tls;
  wake_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  end_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_.valid() || !end_.valid()) return Outcome::failure(errno, "eventfd");
  const Result<bool> recovered = recover(options);
  if (!recovered.ok()) return recovered;
  Result<Fd> listener = listen_on(options.listen);
  if (!listener.ok()) return Outcome::failure(listener.error, listener.call);
  listener_ = std::move(listener.value);
  port_ = port_of(listener_.get());
  const SuperState& state = super_.state();
  epoch_ = state.epoch;
  note(state);
  unfit_ = options.unfit || state.state == DiskState::failed;
  marks_lost_ = options.marks_lost;
  received_ = durable_ = journal_.end().tail.lsn;
  applied_ = state.checkpoint.tail.lsn;
  replaying_ = true;
  used_ = journal_.used();
  feed_.start(state.checkpoint, journal_.end(), options.feed);
  started_ = true;
  thread_ = std::thread([this] { run(); });
  acceptor_ = std::thread([this] { accept_loop(); });
  return Outcome::success(true);
}

/** Opens the journal and finds its end; the superblock says which role this is. */
Result<bool> Receiver::recover(const ReceiverOptions& options) {
  using Outcome = Result<bool>;
  if (options.journal_bytes < min_journal) return Outcome::failure(EINVAL, "journal");
  const Result<bool> made = journal_.open(options.journal, options.journal_bytes);
  if (!made.ok()) return made;
  SuperState state = super_.state();
  if (options.fresh != nullptr) {
    const int error = journal_.reset(*options.fresh);
    if (error != 0) return Outcome::failure(error, "journal");
    state.checkpoint = {0, *options.fresh};
  } else if (made.value && state.checkpoint.cursor > 0) {
    return Outcome::failure(EBADMSG, "journal");
  }
  if (!journal_.direct()) events_.warning("no O_DIRECT for the journal");
  const auto look = [&](const Record& record, std::span<const uint8_t>) {
    if (record.kind == Kind::synced && record.synced.run == state.resync &&
        state.state == DiskState::inconsistent) {
      ended_ = true;
    }
  };
  const Result<JournalPoint> end = journal_.recover(state.checkpoint, look);
  if (!end.ok()) return Outcome::failure(end.error, end.call);
  if (!options.folder.empty()) {
    const Result<bool> reports = reports_.open(options.folder + "/reports");
    if (!reports.ok()) return Outcome::failure(reports.error, reports.call);
  }
  // A primary that was not stopped in order stays one in the superblock until it is made equal:
  // what it may have more than it says must not be forgotten.
  if (!was_primary(state)) {
    state.role = 2;
    state.clean = 0;
  }
  const int error = super_.save(state);
  if (error != 0) return Outcome::failure(error, "super");
  return Outcome::success(true);
}

int Receiver::save_checkpoint(const JournalPoint& point) {
  // `synced` removes the file of the reports, under this lock too.
  const std::lock_guard lock(super_mutex_);
  SuperState state = super_.state();
  if (point.cursor < state.checkpoint.cursor) return 0;  // the end of a resync was there first
  // What the source has to hear is not found out again behind a checkpoint.
  if (state.state == DiskState::inconsistent) {
    if (const int error = reports_.save(); error != 0) return error;
  }
  state.checkpoint = point;
  return super_.save(state);
}

void Receiver::wake() {
  if (wake_.valid()) ring_bell(wake_);
}

void Receiver::accept_loop() {
  for (;;) {
    pollfd wait[2] = {{listener_.get(), POLLIN, 0}, {end_.get(), POLLIN, 0}};
    if (poll(wait, 2, -1) < 0 && errno != EINTR) return;
    if (wait[1].revents != 0) return;
    if (wait[0].revents == 0) continue;
    Fd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.valid()) {
      // No descriptor, no memory: the connection stays in the queue, so this would spin.
      const bool short_of =
          errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
      if (short_of) poll(&wait[1], 1, 100);
      continue;
    }
    if (boot_ns() >= cut_until_ns_) hear(std::move(socket));
  }
}

/** Shakes hands with a caller and passes it on to the receiving thread when it may be one. */
void Receiver::hear(Fd socket) {
  auto channel = std::make_unique<Channel>();
  const int64_t deadline = boot_ns() + hear_ns;
  SocketOptions options;
  options.send_timeout_ms = options_.send_timeout_ms;
  const Result<bool> shaken = channel->start(identity_, std::move(socket), TlsStream::Side::server,
                                             options, deadline, end_.get());
  FrameHead head{};
  HelloBody hello{};
  std::vector<EpochStart> history;
  if (!shaken.ok() || channel->await(head, deadline, end_.get()) != 0 ||
      head.type != static_cast<uint32_t>(Frame::hello)) {
    return;
  }
  // The first two fields say whether the rest is what this version knows.
  const auto bytes = channel->control();
  if (bytes.size() < 2 * sizeof(uint32_t)) return;
  std::memcpy(&hello, bytes.data(), std::min(bytes.size(), sizeof hello));
  if (hello.magic != stream_magic) return;
  if (hello.version != stream_version) return refuse(*channel, Refusal::version);
  if (hello.history > max_history ||
      bytes.size() != sizeof hello + hello.history * sizeof(EpochStart)) {
    return;
  }
  history.resize(hello.history);
  if (!history.empty()) {
    std::memcpy(history.data(), bytes.data() + sizeof hello, bytes.size() - sizeof hello);
  }
  if (std::memcmp(hello.set, options_.set, sizeof hello.set) != 0) {
    return refuse(*channel, Refusal::set);
  }
  if (hello.volumes != options_.volumes.size()) return refuse(*channel, Refusal::volumes);
  {
    const std::lock_guard lock(caller_mutex_);
    if (caller_.channel && caller_.hello.epoch > hello.epoch) {
      return refuse(*channel, Refusal::epoch);
    }
    caller_ = {std::move(channel), hello, std::move(history)};
  }
  wake();
}

void Receiver::refuse(Channel& channel, Refusal reason) {
  refusals_++;
  channel.post(Frame::refuse, RefuseBody{static_cast<uint32_t>(reason), 0});
  events_.event("peer", {{"state", "refused"}, {"reason", reason}});
}

Result<Tail> Receiver::end() {
  using Outcome = Result<Tail>;
  if (!started_) return Outcome::failure(EINVAL, "start");
  orderly_ = true;
  stopping_ = true;
  ring_bell(end_);
  if (acceptor_.joinable()) acceptor_.join();
  if (thread_.joinable()) thread_.join();
  listener_.reset();
  const Result<JournalPoint> point = feed_.finish();
  if (error_ != 0) return Outcome::failure(error_, "receive");
  if (!point.ok()) return Outcome::failure(point.error, point.call);
  return Outcome::success(point.value.tail);
}

Result<Tail> Receiver::promote() {
  return end();
}

Result<Tail> Receiver::stop() {
  Result<Tail> tail = end();
  if (!tail.ok()) return tail;
  SuperState state = super_.state();
  if (was_primary(state)) return tail;
  state.clean = 1;
  const int error = super_.save(state);
  return error == 0 ? tail : Result<Tail>::failure(error, "super");
}

void Receiver::cut(int64_t ms) {
  cut_until_ns_ = boot_ns() + ms * ns_per_ms;
  wake();
}

void Receiver::applied(Lsn lsn) {
  applied_.store(lsn, std::memory_order_release);
  // Who makes this copy equal waits for it.
  if (state_ != DiskState::in_sync) wake();
}

void Receiver::replayed(Lsn lsn) {
  replaying_ = false;
  events_.event("applied_to_end", {{"lsn", lsn}});
}

void Receiver::apply_failed(int error, const char* call) {
  feed_.fail(error, call);
}

void Receiver::send(Frame type, const void* body, size_t size) {
  std::shared_ptr<Channel> channel;
  {
    const std::lock_guard lock(channel_mutex_);
    channel = channel_;
  }
  if (channel == nullptr) return;
  // The rest of it goes when the receiving thread sees that the socket is writable.
  if (channel->post(type, body, size) != Io::done) wake();
}

ReceiverStatus Receiver::status() const {
  ReceiverStatus status;
  status.state = state_;
  status.resync = run_;
  status.base_epoch = base_epoch_;
  status.base_lsn = base_lsn_;
  status.reports = reports_.count();
  status.reports_kept = reports_.kept();
  status.connected = connected_;
  status.failed = failed_ || state_ == DiskState::failed;
  status.replaying = replaying_;
  status.direct = journal_.direct();
  status.peer_node = peer_node_;
  status.epoch = epoch_;
  status.received = received_;
  status.durable = durable_;
  status.applied = applied_;
  status.journal_used = used_;
  status.journal_size = journal_.size();
  status.journal_full = waits_;
  status.writes = writes_;
  status.written_bytes = written_bytes_;
  status.barriers = barriers_;
  status.acks = acks_;
  status.connects = connects_;
  status.refusals = refusals_;
  status.protocol_errors = protocol_errors_;
  status.checkpoints = feed_.checkpoints();
  status.read_back_bytes = feed_.read_back();
  status.write_last_ns = write_last_ns_;
  status.write_most_ns = write_most_ns_;
  return status;
}

}  // namespace holdfast::replica
