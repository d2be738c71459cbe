#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/clock.h"
#include "replica/receiver.h"

/** The receiving thread: socket, checks, journal, acknowledgement. */
namespace holdfast::replica {
namespace {

constexpr int64_t tick_every_ns = ns_per_s;
// A peer that is told why we leave has this long to read it.
constexpr int64_t farewell_ns = ns_per_s;

/** Sends what waits, then waits for the other end to close: a close with unread data would take
 * back what was sent. */
void say_farewell(Channel& channel) {
  const int64_t until = boot_ns() + farewell_ns;
  bool sending = channel.sending();
  if (!sending) ::shutdown(channel.fd(), SHUT_WR);
  std::vector<uint8_t> ignored(64 * 1024);
  for (;;) {
    const int64_t left_ms = (until - boot_ns()) / ns_per_ms;
    if (left_ms <= 0) return;
    pollfd wait{channel.fd(), static_cast<short>(sending ? POLLIN | POLLOUT : POLLIN), 0};
    if (poll(&wait, 1, static_cast<int>(left_ms)) < 0 && errno != EINTR) return;
    if ((wait.revents & POLLOUT) != 0) {
      const Io io = channel.flush();
      if (io == Io::closed) return;
      sending = io == Io::blocked;
      if (!sending) ::shutdown(channel.fd(), SHUT_WR);
    }
    if ((wait.revents & ~POLLOUT) == 0) continue;
    const ssize_t got = recv(channel.fd(), ignored.data(), ignored.size(), MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return;
  }
}

}  // namespace

void Receiver::run() {
  while (!stopping_) {
    uint64_t rung;
    if (read(wake_.get(), &rung, sizeof rung) < 0 && errno != EAGAIN) break;
    const int64_t now = boot_ns();
    if (full_) {
      journal_.free_to(feed_.freed());
      full_ = false;
    }
    if (feed_.error() != 0 && !failed_) fail(Leave::apply, feed_.error(), feed_.failed_call());
    if (channel_ != nullptr && now < cut_until_ns_) lose("lost", ECONNRESET);
    if (write_is_due(now)) write_batch();
    greet();
    if (channel_ != nullptr) receive();
    if (write_is_due(boot_ns())) write_batch();
    go_on();
    tick(boot_ns());
    wait(boot_ns());
  }
  if (!orderly_) return;
  // What waits may have been acknowledged as received.
  while (intake_.waiting() > 0 && !failed_) {
    write_batch();
    if (!full_) continue;
    pollfd bell{wake_.get(), POLLIN, 0};
    poll(&bell, 1, 100);
    uint64_t rung;
    if (read(wake_.get(), &rung, sizeof rung) < 0 && errno != EAGAIN) break;
    if (feed_.error() != 0) fail(Leave::apply, feed_.error(), feed_.failed_call());
    journal_.free_to(feed_.freed());
    full_ = false;
  }
  if (channel_ == nullptr) return;
  // Cut, it has nobody to say farewell to, and does not wait for one.
  if (boot_ns() < cut_until_ns_) return lose("lost", ECONNRESET);
  leave(Leave::stop, 0);
}

/** Takes the next caller, once everything that the last one sent is in the journal. */
void Receiver::greet() {
  Caller caller;
  {
    const std::lock_guard lock(caller_mutex_);
    if (!caller_.channel) return;
    caller = std::move(caller_);
  }
  Refusal reason{};
  if (!fits(caller.hello, reason)) return refuse(*caller.channel, reason);
  if (channel_ != nullptr) lose("lost", ECONNABORTED);
  if (intake_.waiting() > 0) write_batch();
  if (full_) {
    // Asked again when there is room; a newer caller may have come meanwhile.
    const std::lock_guard lock(caller_mutex_);
    if (!caller_.channel) caller_ = std::move(caller);
    return;
  }
  if (failed_) return refuse(*caller.channel, Refusal::state);
  const Tail tail = journal_.end().tail;
  {
    // Nothing older is heard from now on. What of its history is this copy's too is known when
    // records come.
    const std::lock_guard lock(super_mutex_);
    SuperState state = super_.state();
    if (caller.hello.epoch > state.epoch) {
      state.epoch = caller.hello.epoch;
      if (super_.save(state) != 0) return refuse(*caller.channel, Refusal::state);
    }
  }
  hello_ = caller.hello;
  history_ = std::move(caller.history);
  begun_ = catching_up_ = false;
  told_applied_ = 0;
  epoch_ = hello_.epoch;
  intake_.begin(hello_.epoch);
  receipts_ = (hello_.flags & hello_receipts) != 0;
  told_received_ = tail.lsn;
  barrier_ = 0;
  heard_ns_ = boot_ns();
  drained_ = false;
  {
    const std::lock_guard lock(channel_mutex_);
    channel_ = std::move(caller.channel);
  }
  say_welcome(tail);
  tick_ns_ = 0;
  peer_node_ = hello_.node;
  connected_ = true;
  connects_++;
  events_.event("peer", {{"state", "connected"}, {"node", hello_.node}});
}

/** What the superblock allows. Whether the history goes on here is the source's to decide. */
bool Receiver::fits(const HelloBody& hello, Refusal& reason) {
  const std::lock_guard lock(super_mutex_);
  reason = Refusal::state;
  if (failed_) return false;
  reason = Refusal::epoch;
  return hello.epoch >= super_.state().epoch;
}

/** Reads until there is nothing more, or a whole batch. */
void Receiver::receive() {
  while (channel_ != nullptr && !full_ && !intake_.full()) {
    Io io;
    if (channel_->records_left() > 0) {
      size_t got = 0;
      const std::span<uint8_t> room = intake_.room();
      const bool first = intake_.waiting() == 0;
      io = channel_->records(room.data(), room.size(), got);
      const bool good = intake_.took(got) && (channel_->records_left() > 0 || intake_.whole());
      if (first && intake_.waiting() > 0) first_ns_ = boot_ns();
      received_ = intake_.received().lsn;
      // Another run's end would be taken for this one's.
      const bool other =
          intake_.sealed() && state_ == DiskState::inconsistent && intake_.sealed_run() != run_;
      if (other) intake_.clear();
      if (io == Io::done && (!good || other)) return leave(Leave::protocol, EBADMSG);
    } else {
      FrameHead head{};
      io = channel_->next(head);
      if (io == Io::done && !take_frame(head)) return;
    }
    if (io == Io::closed) {
      if (channel_->error() == EPROTO || channel_->error() == EBADMSG) protocol_errors_++;
      return lose("lost", channel_->error());
    }
    drained_ = io == Io::blocked;
    if (drained_) break;
    heard_ns_ = boot_ns();
  }
  if (receipts_ && channel_ != nullptr && intake_.received().lsn > told_received_) {
    acknowledge(journal_.end().tail.lsn);
  }
}

/** False: the connection is over. */
bool Receiver::take_frame(const FrameHead& head) {
  switch (static_cast<Frame>(head.type)) {
    case Frame::ping:
      // A primary that pings has decided to go on here, and may have nothing to send.
      if (begun_ || unfit_ || stage_ != Stage::none || begin_records()) return true;
      break;
    case Frame::records:
      if (stage_ != Stage::none || (!begun_ && !begin_records())) break;
      return true;
    case Frame::resync:
      if (!take_resync()) break;
      return true;
    case Frame::barrier: {
      BarrierBody body{};
      if (stage_ != Stage::none || (!begun_ && !begin_records())) break;
      if (!channel_->body(body) || body.lsn > intake_.received().lsn) break;
      barriers_++;
      attention_.came(boot_ns());
      barrier_ = std::max(barrier_, body.lsn);
      // Already there, as after a reconnection: nothing will be written for it.
      if (body.lsn <= journal_.end().tail.lsn) acknowledge(journal_.end().tail.lsn);
      if (early()) acknowledge(body.lsn);
      return true;
    }
    case Frame::leave:
      lose("left", 0);
      return false;
    case Frame::refuse: {
      RefuseBody body{};
      if (!channel_->body(body)) break;
      refusals_++;
      lose("refused", static_cast<int>(body.reason));
      return false;
    }
    default:
      break;
  }
  leave(Leave::protocol, EPROTO);
  return false;
}

bool Receiver::write_is_due(int64_t now) const {
  if (intake_.waiting() == 0 || full_ || failed_) return false;
  if (intake_.full() || channel_ == nullptr) return true;
  // Barriers that arrived while the last write ran are served by one write.
  if (drained_ && barrier_ > journal_.end().tail.lsn && !early()) return true;
  return now - first_ns_ >= options_.group_ms * ns_per_ms;
}

void Receiver::write_batch() {
  const size_t size = intake_.waiting();
  const bool sealed = intake_.sealed();
  const int64_t began = boot_ns();
  int error = intake_.write();
  if (error == ENOSPC) {
    // The applier may have made room since the journal was last told.
    journal_.free_to(feed_.freed());
    error = intake_.write();
  }
  if (error == ENOSPC) {
    full_ = true;
    waits_++;
    return feed_.urge();
  }
  if (error != 0) return fail(Leave::journal, error, "journal");
  const int64_t took = boot_ns() - began;
  const Lsn durable = journal_.end().tail.lsn;
  durable_ = durable;
  write_last_ns_ = took;
  if (took > write_most_ns_) write_most_ns_ = took;
  writes_++;
  written_bytes_ += size;
  used_ = journal_.used();
  if (sealed && state_ == DiskState::inconsistent) ended_ = true;
  acknowledge(durable);
  intake_.pass_on();
  first_ns_ = boot_ns();
  // What came behind `synced` was not looked at so far.
  if (sealed && !intake_.took(0)) return leave(Leave::protocol, EBADMSG);
  received_ = intake_.received().lsn;
}

void Receiver::acknowledge(Lsn durable) {
  if (channel_ == nullptr) return;
  told_received_ = intake_.received().lsn;
  acks_++;
  // Before what was found while it was applied is told, it does not count as applied.
  const Lsn applied = applied_.load(std::memory_order_acquire);
  if (tell_reports()) told_applied_ = applied;
  // A connection that is over is seen by the next read.
  channel_->post(Frame::ack, AckBody{told_received_, durable, told_applied_});
}

/** Each second: free space, and whether the primary still lives. */
void Receiver::tick(int64_t now) {
  if (channel_ == nullptr || now - tick_ns_ < tick_every_ns) return;
  tick_ns_ = now;
  if (now - heard_ns_ >= options_.send_timeout_ms * ns_per_ms && !full_) {
    return lose("lost", ETIMEDOUT);
  }
  bool said = false;
  for (uint32_t volume = 0; volume < options_.volumes.size(); volume++) {
    struct statvfs space;
    if (fstatvfs(options_.volumes[volume], &space) != 0) continue;
    // Blocks in units of the fragment size, as statvfs counts them; free ones as for users.
    channel_->post(Frame::space,
                   SpaceBody{space.f_blocks, space.f_bavail, space.f_files, space.f_favail,
                             static_cast<uint32_t>(space.f_frsize), volume});
    said = true;
  }
  if (!said) channel_->post(Frame::ping);
  used_ = journal_.used();
}

/** Waits for bytes, a call, room in the journal, or the time of the next write. */
void Receiver::wait(int64_t now) {
  if (stopping_ || (channel_ != nullptr && !full_ && !drained_)) return;
  if (write_is_due(now)) return;
  pollfd wait[3] = {{wake_.get(), POLLIN, 0}, {end_.get(), POLLIN, 0}, {-1, 0, 0}};
  int64_t until = now + tick_every_ns;
  if (channel_ != nullptr) {
    const int events = (full_ ? 0 : POLLIN) | (channel_->sending() ? POLLOUT : 0);
    // Without events a connection that broke would still wake the poll, again and again.
    if (events != 0) wait[2] = {channel_->fd(), static_cast<short>(events), 0};
    until = tick_ns_ + tick_every_ns;
  }
  if (!full_ && intake_.waiting() > 0) {
    until = std::min(until, first_ns_ + options_.group_ms * ns_per_ms);
  }
  const timespec left = to_timespec(std::max<int64_t>(until - now, 0));
  if (attention_.watch(wait, 3) == 0 && ppoll(wait, 3, &left, nullptr) < 0) return;
  if ((wait[2].revents & POLLOUT) != 0) channel_->flush();
  if ((wait[2].revents & ~POLLOUT) != 0) drained_ = false;
}

/** The connection is over; what it sent is written all the same. */
void Receiver::lose(const char* state, int error) {
  std::shared_ptr<Channel> channel;
  {
    const std::lock_guard lock(channel_mutex_);
    channel = std::move(channel_);
  }
  if (channel == nullptr) return;
  channel->shut(error);
  intake_.cut();
  connected_ = false;
  if (stage_ == Stage::resting) feed_.wake_up();
  stage_ = Stage::none;
  if (begun_ && state_ == DiskState::inconsistent) {
    events_.event("resync", {{"state", "interrupted"}, {"run", run_.load()}});
  }
  events_.event("peer", {{"state", state}, {"reason", error}});
}

/** Ends the connection and says why. */
void Receiver::leave(Leave reason, int error) {
  if (channel_ == nullptr) return;
  if (reason == Leave::protocol) protocol_errors_++;
  const LeaveBody body{static_cast<uint32_t>(error), static_cast<uint32_t>(reason),
                       journal_.end().tail.lsn};
  if (channel_->post(Frame::leave, body) != Io::closed) say_farewell(*channel_);
  lose("left", error);
}

/** This copy is none any more: said durably, to the primary and to the agent. */
void Receiver::fail(Leave reason, int error, const char* call) {
  failed_ = true;
  error_ = error;
  // In a resync the copy is not lost: the undo log leads back, or its end is in the journal.
  const bool in_resync = state_ == DiskState::inconsistent;
  if (!in_resync) {
    const std::lock_guard lock(super_mutex_);
    SuperState state = super_.state();
    state.state = DiskState::failed;
    const int saved = super_.save(state);
    if (saved != 0) events_.warning("the superblock cannot say that this copy failed", saved);
    note(super_.state());
  }
  events_.event("local_failed", {{"errno", error}, {"call", call}});
  leave(reason, error);
  intake_.clear();
  full_ = false;
  if (in_resync && !ended_) take_back();
}

}  // namespace holdfast::replica
