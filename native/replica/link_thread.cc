#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/clock.h"
#include "replica/link.h"

// The link's own thread: connects, receives, calls back.

namespace holdfast::replica {
namespace {

constexpr int64_t first_backoff = 20 * ns_per_ms;
constexpr int64_t last_backoff = ns_per_s;
constexpr int64_t attempt_time = 3 * ns_per_s;
constexpr int64_t farewell_time = 200 * ns_per_ms;
constexpr int64_t for_ever = INT64_MAX;
/** Frames taken before the thread looks at its other duties. */
constexpr int frames_per_turn = 256;

const char* name_of(Refusal refusal) {
  switch (refusal) {
    case Refusal::set:
      return "set";
    case Refusal::version:
      return "version";
    case Refusal::epoch:
      return "epoch";
    case Refusal::role:
      return "role";
    case Refusal::history:
      return "history";
    case Refusal::state:
      return "state";
    case Refusal::volumes:
      return "volumes";
    case Refusal::fork:
      return "fork";
    case Refusal::behind:
      return "behind";
    case Refusal::unrelated:
      return "unrelated";
  }
  return "unknown";
}

const char* name_of(Leave leave) {
  switch (leave) {
    case Leave::stop:
      return "stop";
    case Leave::journal:
      return "journal";
    case Leave::apply:
      return "apply";
    case Leave::protocol:
      return "protocol";
  }
  return "unknown";
}

bool is_protocol(int error) {
  return error == EPROTO || error == EBADMSG || error == EKEYREJECTED;
}

void empty(int fd) {
  uint64_t count;
  while (read(fd, &count, sizeof count) > 0) {
  }
}

int poll_time(int64_t until_ns, int64_t now_ns) {
  if (until_ns == for_ever) return -1;
  const int64_t left = std::max<int64_t>(until_ns - now_ns, 0);
  return static_cast<int>(std::min<int64_t>((left + ns_per_ms - 1) / ns_per_ms, 3600 * 1000));
}

}  // namespace

void Link::run() {
  while (!stopping_.load()) {
    if (peer_failed_ && !alone_.load()) {
      const int error = save_alone(epoch_shown_.load());
      if (error != 0) {
        if (!save_failed_said_) events_.warning("the superblock cannot be written: frozen", error);
        save_failed_said_ = true;
        idle(boot_ns() + ns_per_s);
        continue;
      }
    }
    if (alone_.load()) {
      detach();
      idle(for_ever);
      continue;
    }
    const int64_t now = boot_ns();
    const int64_t start = std::max(next_try_ns_, cut_until_ns_.load());
    if (now < start) {
      idle(start);
      continue;
    }
    connect(now);
    if (channel_ != nullptr) serve();
  }
  finish();
}

/** Nothing to receive: waits until `until_ns`, or until something else is to be done. */
void Link::idle(int64_t until_ns) {
  const int64_t now = boot_ns();
  say_lost(now);
  const int64_t lost_at = lost_since_ns_ + options_.lock_timeout_ms * ns_per_ms;
  if (!lost_said_ && !alone_.load()) until_ns = std::min(until_ns, lost_at);
  pollfd wait[3] = {{wake_.get(), POLLIN, 0}, {abort_.get(), POLLIN, 0}, {timer_.get(), POLLIN, 0}};
  poll(wait, 3, poll_time(until_ns, now));
  if (wait[0].revents != 0) empty(wake_.get());
  if (wait[1].revents != 0) empty(abort_.get());
  if (wait[2].revents != 0) {
    empty(timer_.get());
    timer_set_.store(false);
  }
  if (room_.exchange(false)) wake_reservers();
}

void Link::say_lost(int64_t now_ns) {
  if (lost_said_ || alone_.load()) return;
  if (now_ns - lost_since_ns_ < options_.lock_timeout_ms * ns_per_ms) return;
  lost_said_ = true;
  events_.event("peer", {{"state", "lost"}});
}

void Link::refused(const char* reason) {
  refusals_.fetch_add(1, std::memory_order_relaxed);
  if (refused_said_ == reason) return;
  refused_said_ = reason;
  events_.event("peer", {{"state", "refused"}, {"reason", reason}});
}

/** One attempt; on success `channel_` is there. */
void Link::connect(int64_t now_ns) {
  backoff_ns_ = std::clamp(2 * backoff_ns_, first_backoff, last_backoff);
  next_try_ns_ = now_ns + backoff_ns_;
  int64_t deadline = now_ns + attempt_time;
  const int64_t lost_at = lost_since_ns_ + options_.lock_timeout_ms * ns_per_ms;
  if (!lost_said_) deadline = std::min(deadline, std::max(lost_at, now_ns + first_backoff));

  Result<Fd> socket = connect_to(options_.peer, deadline, abort_.get());
  auto channel = std::make_unique<Channel>();
  uint64_t cursor = 0;
  WelcomeBody welcome{};
  bool good = false;
  if (socket.ok()) {
    const SocketOptions options{options_.send_timeout_ms, options_.send_buffer};
    const auto started = channel->start(identity_, std::move(socket.value), TlsStream::Side::client,
                                        options, deadline, abort_.get());
    good = started.ok() && greet(*channel, cursor, welcome, deadline);
    if (is_protocol(channel->error())) {
      protocol_errors_.fetch_add(1, std::memory_order_relaxed);
      refused(channel->error() == EKEYREJECTED ? "certificate" : "protocol");
    }
  }
  if (good) {
    adopt(std::move(channel), cursor, welcome);
  } else {
    failed_connects_.fetch_add(1, std::memory_order_relaxed);
    say_lost(boot_ns());
  }
}

/** Says who calls; true when the other is a copy that the ring can continue. */
bool Link::greet(Channel& channel, uint64_t& cursor, WelcomeBody& welcome, int64_t deadline_ns) {
  HelloBody hello{};
  hello.magic = stream_magic;
  hello.version = stream_version;
  std::copy(std::begin(options_.set), std::end(options_.set), hello.set);
  hello.node = options_.node;
  hello.volumes = options_.volumes;
  hello.epoch = epoch_shown_.load();
  hello.first = ring_.before_first().lsn + 1;
  hello.last = last();
  hello.flags = options_.strict || options_.second ? uint32_t{hello_receipts} : 0;
  if (channel.post(Frame::hello, hello) == Io::closed) return false;
  FrameHead head{};
  if (channel.await(head, deadline_ns, abort_.get()) != 0) return false;
  if (head.type == static_cast<uint32_t>(Frame::refuse)) {
    RefuseBody refuse{};
    if (channel.body(refuse)) {
      refused(name_of(static_cast<Refusal>(refuse.reason)));
    } else {
      channel.shut(EPROTO);
    }
    return false;
  }
  if (head.type != static_cast<uint32_t>(Frame::welcome) || !channel.body(welcome)) {
    channel.shut(EPROTO);
    return false;
  }
  if (!ring_.find({welcome.durable, welcome.epoch, welcome.chain}, cursor)) {
    channel.post(Frame::refuse, RefuseBody{static_cast<uint32_t>(Refusal::history), 0});
    refused("history");
    return false;
  }
  return true;
}

/** The connection is good: what the peer lacks goes out. */
void Link::adopt(std::unique_ptr<Channel> channel, uint64_t cursor, const WelcomeBody& welcome) {
  take_sending();
  if (alone_.load()) return sending_.store(false);
  channel_ = std::move(channel);
  cursor_ = cursor;
  cursor_shown_.store(cursor, std::memory_order_relaxed);
  sent_.store(welcome.durable);
  barrier_sent_ = welcome.durable;
  writable_.store(false);
  sending_.store(false);
  peer_node_.store(welcome.node);
  {
    // What it had received and not made durable, it may have lost.
    const std::lock_guard lock(wait_mutex_);
    received_.store(welcome.durable);
    durable_.store(welcome.durable);
  }
  ring_.free_to(welcome.durable);
  if (options_.peer_has) options_.peer_has(welcome.durable);
  connected_.store(true);
  connects_.fetch_add(1, std::memory_order_relaxed);
  heard_ns_ = boot_ns();
  refused_said_.clear();
  events_.event("peer", {{"state", "connected"}, {"node", welcome.node}});
  complete();
  if (reservers_count_.load() > 0) wake_reservers();
  asked_.store(true);
  kick();
}

/** Ends the connection, if there is one. */
void Link::drop() {
  take_sending();
  const std::unique_ptr<Channel> old = std::move(channel_);
  sending_.store(false);
  if (old == nullptr) return;
  if (is_protocol(old->error())) protocol_errors_.fetch_add(1, std::memory_order_relaxed);
  connected_.store(false);
  lost_since_ns_ = boot_ns();
  lost_said_ = false;
}

/** Alone: the peer's connection ends, and from now on the ring may drop what is old. */
void Link::detach() {
  if (detached_.load()) return;
  drop();
  detached_.store(true, std::memory_order_release);
  complete();
  wake_reservers();
}

void Link::serve() {
  const int64_t silence = options_.send_timeout_ms * ns_per_ms;
  const int64_t beat = std::min(ns_per_s, silence / 3);
  int64_t next_beat = boot_ns() + beat;
  // What came together with the welcome is in our own buffers already.
  bool good = take_frames();
  while (good && !stopping_.load() && !alone_.load() && channel_->error() == 0) {
    const int64_t now = boot_ns();
    if (cut_until_ns_.load() > now || now - heard_ns_ >= silence) break;
    if (now >= next_beat) {
      const uint64_t sends = sends_.load(std::memory_order_relaxed);
      if (sends == sends_seen_ && !channel_->sending()) channel_->post(Frame::ping);
      sends_seen_ = sends;
      next_beat = now + beat;
      backoff_ns_ = 0;  // it lasted
    }
    const auto events = static_cast<short>(POLLIN | (channel_->sending() ? POLLOUT : 0));
    pollfd wait[4] = {{channel_->fd(), events, 0},
                      {wake_.get(), POLLIN, 0},
                      {abort_.get(), POLLIN, 0},
                      {timer_.get(), POLLIN, 0}};
    if (attention_.watch(wait, 4) == 0 && poll(wait, 4, poll_time(next_beat, now)) <= 0) continue;
    if ((wait[0].revents & ~POLLOUT) != 0) good = take_frames();
    if (wait[1].revents != 0) empty(wake_.get());
    if (wait[2].revents != 0) empty(abort_.get());
    if (wait[3].revents != 0) {
      empty(timer_.get());
      timer_set_.exchange(false);
      asked_.store(true);
    }
    if ((wait[0].revents & POLLOUT) != 0) {
      writable_.store(true);
      asked_.store(true);
    }
    kick();
    if (room_.exchange(false)) wake_reservers();
  }
  if (!stopping_.load()) drop();
}

bool Link::take_frames() {
  for (int i = 0; i < frames_per_turn; i++) {
    FrameHead head{};
    const Io io = channel_->next(head);
    if (io == Io::blocked) return true;
    if (io == Io::closed) return false;
    if (!take_frame(head)) return false;
  }
  // More may lie in our own buffers, where poll does not see it.
  wake();
  return true;
}

/** False: the connection is to end. */
bool Link::take_frame(const FrameHead& head) {
  heard_ns_ = boot_ns();
  bool good = false;
  switch (static_cast<Frame>(head.type)) {
    case Frame::ack: {
      AckBody ack{};
      good = channel_->body(ack) && take_ack(ack);
      break;
    }
    case Frame::space: {
      SpaceBody space{};
      good = channel_->body(space) && space.volume < options_.volumes;
      if (!good) break;
      const std::lock_guard lock(space_mutex_);
      space_[space.volume] = space;
      space_known_[space.volume] = true;
      break;
    }
    case Frame::leave: {
      LeaveBody leave{};
      if (!channel_->body(leave)) break;
      take_leave(leave);
      return false;
    }
    case Frame::ping:
      good = head.size == 0;
      break;
    case Frame::differs:
      if (options_.differs) options_.differs(channel_->control());
      good = true;
      break;
    default:
      break;
  }
  if (!good) channel_->shut(EPROTO);
  return good;
}

bool Link::take_ack(const AckBody& ack) {
  if (ack.received > sent_.load() || ack.durable > ack.received || ack.applied > ack.received ||
      ack.durable < durable_.load() || ack.received < received_.load()) {
    return false;
  }
  acks_.fetch_add(1, std::memory_order_relaxed);
  attention_.came(heard_ns_);
  backoff_ns_ = 0;
  applied_.store(ack.applied);
  const bool more_durable = ack.durable > durable_.load();
  if (!more_durable && ack.received == received_.load()) return true;
  {
    const std::lock_guard lock(wait_mutex_);
    durable_.store(ack.durable);
    received_.store(ack.received);
  }
  complete();
  if (more_durable) {
    ring_.free_to(ack.durable);
    if (options_.peer_has) options_.peer_has(ack.durable);
    if (reservers_count_.load() > 0) wake_reservers();
  }
  return true;
}

void Link::take_leave(const LeaveBody& leave) {
  events_.event("peer", {{"state", "left"},
                         {"reason", name_of(static_cast<Leave>(leave.reason))},
                         {"errno", leave.error},
                         {"durable", leave.durable}});
  // Stopped in order, it may be made the primary with what it has: only `alone` may go on then.
  // After a failure it has stored that it must not.
  const auto reason = static_cast<Leave>(leave.reason);
  peer_failed_ = leave.error != 0 || reason == Leave::journal || reason == Leave::apply ||
                 reason == Leave::protocol;
  backoff_ns_ = last_backoff;
  next_try_ns_ = boot_ns() + last_backoff;
}

/** Calls back all whose wait is over. */
void Link::complete() {
  const bool all = alone_.load();
  {
    const std::lock_guard lock(wait_mutex_);
    const int64_t now = boot_ns();
    durable_waits_.take(all ? UINT64_MAX : durable_.load(), now, ready_);
    received_waits_.take(all ? UINT64_MAX : received_.load(), now, ready_);
  }
  for (const Waiter& waiter : ready_) waiter.done(waiter.context, waiter.argument, 0);
  ready_.clear();
}

void Link::wake_reservers() {
  {
    const std::lock_guard lock(wait_mutex_);
    std::swap(ready_, reservers_);
    reservers_count_.store(0);
  }
  for (const Waiter& waiter : ready_) waiter.done(waiter.context, waiter.argument, 0);
  ready_.clear();
}

/** Tells the peer that this side stops, and lets it close: closing over what it still sends would
 * take back what it has not yet read. */
void Link::farewell() {
  const LeaveBody leave{0, static_cast<uint32_t>(Leave::stop), durable_.load()};
  const int64_t deadline = boot_ns() + farewell_time;
  channel_->post(Frame::leave, leave);
  for (FrameHead head{}; channel_->await(head, deadline, -1) == 0;) {
    if (!take_frame(head)) break;
  }
}

void Link::finish() {
  if (channel_ != nullptr && channel_->error() == 0) farewell();
  drop();
  complete();
  {
    const std::lock_guard lock(wait_mutex_);
    durable_waits_.take(UINT64_MAX, boot_ns(), ready_);
    received_waits_.take(UINT64_MAX, boot_ns(), ready_);
    ready_.insert(ready_.end(), reservers_.begin(), reservers_.end());
    reservers_.clear();
    reservers_count_.store(0);
  }
  for (const Waiter& waiter : ready_) waiter.done(waiter.context, waiter.argument, EIO);
  ready_.clear();
}

}  // namespace holdfast::replica
