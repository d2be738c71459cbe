#include "beat/thread.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "beat/sockets.h"
#include "common/clock.h"

namespace holdfast::beat {
namespace {

constexpr int realtime_priority = 50;
constexpr size_t stack_size = 512 * 1024;
// A flood of datagrams may take this many per network and turn; then the thread rests, so that
// it neither misses its own schedule nor takes the processor for itself.
constexpr int drain_limit = 64;
constexpr int64_t rest_ns = ns_per_ms;
constexpr int64_t idle_ns = ns_per_s;
constexpr int64_t stats_interval_ns = 20 * ns_per_ms;

}  // namespace

int HeartbeatThread::start() {
  timer_.reset(timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC));
  waker_.reset(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!timer_.valid() || !waker_.valid()) return errno;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, stack_size);
  const int error = pthread_create(&thread_, &attributes, run, this);
  pthread_attr_destroy(&attributes);
  if (error != 0) return error;
  started_ = true;
  pthread_setname_np(thread_, "heartbeat");
  const sched_param priority{realtime_priority};
  realtime_ = pthread_setschedparam(thread_, SCHED_FIFO, &priority) == 0;
  wake();
  return 0;
}

void HeartbeatThread::stop() {
  if (!started_) return;
  stopping_.store(true, std::memory_order_release);
  wake();
  pthread_join(thread_, nullptr);
  started_ = false;
}

void HeartbeatThread::wake() {
  const uint64_t one = 1;
  // It cannot block: the counter of an eventfd overflows after 2^64 - 2 wakes that nobody read.
  [[maybe_unused]] const ssize_t written = write(waker_.get(), &one, sizeof one);
}

void HeartbeatThread::publish_config() {
  configs_.publish();
  wake();
}

bool HeartbeatThread::announced() {
  wake();
  Announcement said;
  // In the way of a writer: a later one of its commands finds it.
  return !shared_.announcement.read(said) || makes_sense(said);
}

void HeartbeatThread::request_resync() {
  resync_.store(true, std::memory_order_release);
  wake();
}

int HeartbeatThread::send(uint32_t lan, uint32_t node, const uint8_t* data, size_t size) {
  const LanConfig& network = config_.lans[lan];
  const SocketAddress& to = network.address[node];
  const ssize_t sent =
      sendto(network.socket, data, size, MSG_DONTWAIT | MSG_NOSIGNAL, &to.plain, address_size(to));
  return sent < 0 ? errno : 0;
}

void HeartbeatThread::event(const Event& event) {
  shared_.events.push(event);
  emitted_ = true;
}

void* HeartbeatThread::run(void* self) {
  static_cast<HeartbeatThread*>(self)->loop();
  return nullptr;
}

void HeartbeatThread::loop() {
  bool paused = false;
  while (!stopping_.load(std::memory_order_acquire)) {
    wait(paused);
    engine_.woke(boot_ns());
    const bool drained = drain();
    paused = !drained;
    // Only then was every socket looked at in this turn.
    const bool may_judge = drained && deadline_;
    take_commands();
    const int64_t now = boot_ns();
    engine_.tick(now, static_cast<int64_t>(shared_.agent_alive_ns.load(std::memory_order_relaxed)),
                 may_judge);
    finish_turn(now);
  }
  engine_.release_leases();
}

/** Sleeps until the engine's next deadline, a datagram or a command; notes which networks have one.
 */
void HeartbeatThread::wait(bool paused) {
  const int64_t now = boot_ns();
  int64_t until = config_.configured() ? engine_.next_wake() : now + idle_ns;
  if (paused) until = now + rest_ns;
  if (until != timer_at_) {
    itimerspec when{};
    when.it_value = to_timespec(std::max(until, int64_t{1}));
    timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
    timer_at_ = until;
  }
  pollfd polled[2 + max_lans];
  polled[0] = {timer_.get(), POLLIN, 0};
  polled[1] = {waker_.get(), POLLIN, 0};
  // Without a socket, or resting: -1, which poll passes over.
  for (uint32_t lan = 0; lan < config_.lan_count; lan++) {
    polled[2 + lan] = {paused ? -1 : config_.lans[lan].socket, POLLIN, 0};
  }
  ppoll(polled, 2 + config_.lan_count, nullptr, nullptr);
  uint64_t ignored;
  [[maybe_unused]] ssize_t got = 0;
  deadline_ = polled[0].revents != 0;
  if (deadline_) {
    got = read(timer_.get(), &ignored, sizeof ignored);
    timer_at_ = 0;
  }
  if (polled[1].revents != 0) got = read(waker_.get(), &ignored, sizeof ignored);
  // At a deadline somebody may be judged: then every socket is read until it is empty.
  for (uint32_t lan = 0; lan < config_.lan_count; lan++) {
    waiting_[lan] = deadline_ || polled[2 + lan].revents != 0;
  }
}

bool HeartbeatThread::drain() {
  bool drained = true;
  for (uint32_t lan = 0; lan < config_.lan_count; lan++) {
    if (config_.lans[lan].socket >= 0 && waiting_[lan] && !drain_lan(lan)) drained = false;
  }
  return drained;
}

/**
 * Reads what waits on one network; false when the limit was reached. The kernel's receive
 * timestamp is wall time, so only the datagram's age is taken from it, and the age is kept within
 * what is known for sure: the socket was empty at emptied_at_. A jump of the wall clock between
 * arrival and now can therefore move an arrival only inside that interval.
 */
bool HeartbeatThread::drain_lan(uint32_t lan) {
  uint8_t data[wire_max_size + 1];  // one more, so that what is too long is seen as such
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(timespec))];
  for (int i = 0; i < drain_limit; i++) {
    iovec part{data, sizeof data};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t size = recvmsg(config_.lans[lan].socket, &message, MSG_DONTWAIT);
    const int64_t now = boot_ns();
    if (size < 0) {
      // EAGAIN: empty. Anything else is an error queued on the socket; reading cleared it.
      if (errno == EAGAIN || errno == EWOULDBLOCK) {
        emptied_at_[lan] = now;
        return true;
      }
      continue;
    }
    int64_t arrival = now;
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS) continue;
      timespec stamp;
      std::memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
      const int64_t age = wall_ns() - (stamp.tv_sec * ns_per_s + stamp.tv_nsec);
      arrival = std::clamp(now - age, std::min(emptied_at_[lan], now), now);
    }
    engine_.receive(lan, data, static_cast<size_t>(size), arrival, now);
  }
  return false;
}

void HeartbeatThread::take_commands() {
  // Announcements first: a configuration sent before one of them is then seen as well.
  take_announcement(boot_ns());
  const Config* config = configs_.take();
  const bool resync = resync_.exchange(false, std::memory_order_acq_rel);
  const int64_t now = boot_ns();
  if (config != nullptr) {
    for (uint32_t lan = 0; lan < config->lan_count; lan++) {
      const bool same =
          lan < config_.lan_count && config_.lans[lan].socket == config->lans[lan].socket;
      if (!same) emptied_at_[lan] = now;
    }
    engine_.configure(*config, now);
    config_ = *config;
    generation_.store(config->generation, std::memory_order_release);
  }
  if (resync) engine_.resync(now);
}

/**
 * In each turn, woken for it or not: no heartbeat is composed by an older announcement than the one
 * that was whole when the turn's datagrams had been read. One that is being written is found in a
 * later turn.
 */
void HeartbeatThread::take_announcement(int64_t now) {
  const uint64_t at = shared_.announcement.sequence.load(std::memory_order_acquire);
  if (at == announcement_seen_ || !shared_.announcement.read(announcement_)) return;
  announcement_seen_ = at;
  if (!makes_sense(announcement_)) return;
  engine_.announce(announcement_, now);
  acted_by_ = announcement_.number;
}

void HeartbeatThread::finish_turn(int64_t now) {
  last_turn_.store(now, std::memory_order_relaxed);
  if (now - stats_at_ >= stats_interval_ns) {
    stats_at_ = now;
    engine_.fill(stats_);
    stats_.events_lost = shared_.events.lost.load(std::memory_order_relaxed);
    stats_.agent_restarts = agent_restarts_.load(std::memory_order_relaxed);
    stats_.realtime = realtime_ ? 1 : 0;
    stats_.locked = locked_ ? 1 : 0;
    shared_.stats.write(stats_, stats_bytes(stats_.row_count));
  }
  // Only now: leases that it lets run do so.
  if (shared_.announced.load(std::memory_order_relaxed) != acted_by_) {
    shared_.announced.store(acted_by_, std::memory_order_release);
    emitted_ = true;
  }
  if (!emitted_) return;
  emitted_ = false;
  if (shared_.rung.exchange(1, std::memory_order_acq_rel) == 0) {
    const char ring = 1;
    // A full or closed socket is no loss: the agent finds the events when it next looks.
    ::send(doorbell_, &ring, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

}  // namespace holdfast::beat
