#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/clock.h"
#include "replica/link.h"
#include "replica/verify.h"

// The link's own thread: connects, receives, calls back.

namespace holdfast::replica {
namespace {

constexpr int64_t last_backoff = ns_per_s;
constexpr int64_t farewell_time = 200 * ns_per_ms;
constexpr int64_t for_ever = INT64_MAX;
/** How often it is asked whether a resync can end. */
constexpr int64_t end_poll = 10 * ns_per_ms;
/** Frames taken before the thread looks at its other duties. */
constexpr int frames_per_turn = 256;

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
    if (peer_failed_) {
      const int error = alone_.load() ? 0 : save_alone(epoch_shown_.load());
      peer_failed_ = error != 0;
      if (error != 0) {
        if (!save_failed_said_) events_.warning("the superblock cannot be written: frozen", error);
        save_failed_said_ = true;
        idle(boot_ns() + ns_per_s);
        continue;
      }
    }
    notice_alone();
    settle_overrun();
    if (alone_.load() && options_.rejoining == nullptr) {
      idle(for_ever);
      continue;
    }
    const int64_t now = boot_ns();
    if (at_once_.exchange(false)) next_try_ns_ = now;
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
  if (!lost_said_ && says_lost()) until_ns = std::min(until_ns, lost_at);
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
  if (lost_said_ || !says_lost()) return;
  if (now_ns - lost_since_ns_ < options_.lock_timeout_ms * ns_per_ms) return;
  lost_said_ = true;
  events_.event("peer", {{"state", "lost"}});
}

/** Ends the connection, if there is one. */
void Link::drop() {
  take_sending();
  const std::unique_ptr<Channel> old = std::move(channel_);
  streaming_ = false;
  sending_.store(false);
  if (old == nullptr) return;
  interrupt();
  release_ring();
  if (is_protocol(old->error())) protocol_errors_.fetch_add(1, std::memory_order_relaxed);
  connected_.store(false);
  lost_since_ns_ = boot_ns();
  lost_said_ = false;
}

/** Nobody reads the ring: alone, it may drop what is old, so who waits for room tries again. */
void Link::release_ring() {
  ring_.keep(false);
  if (reservers_count_.load() > 0) wake_reservers();
}

/** Alone: who waits for the peer is told, and the ring may drop what is old. */
void Link::notice_alone() {
  if (!alone_.load() || alone_noticed_) return;
  alone_noticed_ = true;
  complete();
  wake_reservers();
}

/** Alone, nobody waits for long because a peer that is being brought back takes nothing. */
bool Link::stalled(int64_t now_ns) {
  // An application does not wait for a distant copy's ring.
  const bool waited_for = alone_.load() && !options_.distant && reservers_count_.load() > 0;
  if (!waited_for) progress_ns_ = now_ns;
  return now_ns - progress_ns_ >= options_.lock_timeout_ms * ns_per_ms;
}

void Link::serve() {
  const int64_t silence = options_.send_timeout_ms * ns_per_ms;
  const int64_t beat = std::min(ns_per_s, silence / 3);
  int64_t next_beat = boot_ns() + beat;
  // What came together with the welcome is in our own buffers already.
  bool good = take_frames();
  while (good && !stopping_.load() && channel_->error() == 0) {
    const int64_t now = boot_ns();
    if (cut_until_ns_.load() > now || now - heard_ns_ >= silence) break;
    notice_alone();
    try_end(now);
    ask_applied(now);
    if (state_failed_.load() || stalled(now) || overrun_.load()) break;
    if (options_.distant) note(now);
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
    const int64_t until = stating_ ? std::min(next_beat, now + end_poll) : next_beat;
    if (attention_.watch(wait, 4) == 0 && poll(wait, 4, poll_time(until, now)) <= 0) {
      kick();
      continue;
    }
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
  if (stopping_.load()) return;
  if (state_failed_.exchange(false)) next_try_ns_ = boot_ns() + last_backoff;
  drop();
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
      take_differs(channel_->control());
      good = true;
      break;
    default:
      good = take_resync_frame(head);
      break;
  }
  if (!good) channel_->shut(EPROTO);
  return good;
}

/** The answer to a comparison that was asked for, or to one of a resync. */
void Link::take_differs(std::span<const uint8_t> body) {
  CheckResult result{};
  if (body.size() != sizeof result) return;
  std::memcpy(&result, body.data(), sizeof result);
  const bool mine = options_.rejoining != nullptr && run_.load() != 0 && result.run == run_.load();
  if (mine) {
    options_.rejoining->differs(body);
  } else if (options_.differs) {
    options_.differs(body);
  }
}

bool Link::take_resync_frame(const FrameHead& head) {
  if (options_.rejoining == nullptr) return false;
  ReadyBody body{};
  switch (static_cast<Frame>(head.type)) {
    case Frame::touched:
      return take_touched(channel_->control());
    case Frame::ready:
      return channel_->body(body) && take_ready(body);
    case Frame::missing:
      return streaming_ && run_.load() != 0 && options_.rejoining->missing(channel_->control());
    case Frame::whole:
      return channel_->body(body) && take_whole(body);
    default:
      return false;
  }
}

bool Link::take_ack(const AckBody& ack) {
  if (!streaming_) return true;  // of what it had before it is ready
  if (ack.received > sent_.load() || ack.durable > ack.received || ack.applied > ack.received ||
      ack.durable < durable_.load() || ack.received < received_.load()) {
    return false;
  }
  acks_.fetch_add(1, std::memory_order_relaxed);
  attention_.came(heard_ns_);
  backoff_ns_ = 0;
  // A peer that was started again applies again what it had.
  const bool more_applied = ack.applied > applied_.load();
  if (more_applied) applied_.store(ack.applied);
  const bool more_durable = ack.durable > durable_.load();
  if (more_durable || ack.received != received_.load()) {
    {
      const std::lock_guard lock(wait_mutex_);
      durable_.store(ack.durable);
      received_.store(ack.received);
      if (synced_ != 0 && ack.durable >= synced_) held_.store(false);
    }
    complete();
  }
  if (more_durable || more_applied) free_ring();
  return true;
}

/** The peer needs no more what it has durably; in a resync, what it has applied. */
void Link::free_ring() {
  const Lsn durable = durable_.load();
  progress_ns_ = boot_ns();
  ring_.free_to(keeps_unapplied() ? std::min(durable, applied_.load()) : durable);
  if (options_.distant) {
    lag_.had(durable);
  } else if (options_.peer_has && !left_.load()) {
    options_.peer_has(durable);
  }
  if (reservers_count_.load() > 0) wake_reservers();
}

void Link::take_leave(const LeaveBody& leave) {
  // Whoever hears of it and asks finds it gone.
  connected_.store(false);
  events_.event("peer", {{"state", "left"},
                         {"reason", name_of(static_cast<Leave>(leave.reason))},
                         {"errno", leave.error},
                         {"durable", leave.durable}});
  // Stopped in order, it may be made the primary with what it has: only `alone` may go on then.
  // After a failure it has stored that it must not.
  // Where another decides who is waited for, that one hears of it, and says so.
  const auto reason = static_cast<Leave>(leave.reason);
  peer_failed_ = !options_.decided && (leave.error != 0 || reason == Leave::journal ||
                                       reason == Leave::apply || reason == Leave::protocol);
  backoff_ns_ = last_backoff;
  next_try_ns_ = boot_ns() + last_backoff;
}

/** Calls back all whose wait is over. */
void Link::complete() {
  {
    const std::lock_guard lock(wait_mutex_);
    const int64_t now = boot_ns();
    const auto until = [this](Lsn have) {
      return alone_.load() ? UINT64_MAX : held_.load() ? held_from_.load() : have;
    };
    durable_waits_.take(until(durable_.load()), now, ready_);
    received_waits_.take(until(received_.load()), now, ready_);
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
