#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <cerrno>
#include <thread>

#include "common/clock.h"
#include "replica/link.h"

// Sending, by whichever thread has a reason to.

namespace holdfast::replica {
namespace {

/** One frame: a larger one would keep a barrier behind it waiting. */
constexpr size_t max_batch = 1u << 20;
/** After so much the link's thread goes on: nobody sends for others for ever. */
constexpr size_t max_turn = 2u << 20;
constexpr int max_turns = 4;
/** As much unsent is sent by the thread that finds it; less waits for push_delay at most. */
constexpr uint64_t push_bytes = 128 * 1024;
constexpr int64_t push_delay = 500 * ns_per_us;

}  // namespace

void Link::wake() {
  eventfd_write(wake_.get(), 1);
}

void Link::push() {
  if (options_.distant && !connected_.load()) return;
  const uint64_t waiting = ring_.after(cursor_shown_.load(std::memory_order_relaxed));
  if (waiting == 0) return;
  // Who makes a change does not work for a distant copy.
  if (waiting >= push_bytes && !options_.distant) {
    asked_.store(true);
    kick();
    return;
  }
  if (timer_set_.exchange(true)) return;
  itimerspec when{};
  when.it_value = to_timespec(push_delay);
  timerfd_settime(timer_.get(), 0, &when, nullptr);
}

/** Gets `sending_` for the link's thread; whoever has it gives it back after one turn. */
void Link::take_sending() {
  while (sending_.exchange(true)) std::this_thread::yield();
}

void Link::kick() {
  for (int turn = 0; asked_.load(); turn++) {
    if (turn == max_turns) return wake();
    if (sending_.exchange(true)) return;  // its holder looks at asked_ when it has given it back
    asked_.store(false);
    const Sent how = send_some();
    sending_.store(false);
    if (how == Sent::all) continue;
    if (how == Sent::some) asked_.store(true);
    wake();
    return;
  }
}

Link::Sent Link::send_some() {
  Channel* channel = channel_.get();
  if (channel == nullptr) return Sent::all;
  if (channel->sending()) {
    // The link's thread was told when the socket was full; it comes when there is room.
    if (!writable_.exchange(false)) return Sent::all;
    const Io io = channel->flush();
    if (io != Io::done) return io == Io::blocked ? Sent::blocked : Sent::closed;
  }
  if (!streaming_) return Sent::all;
  for (size_t turn = 0; turn < max_turn;) {
    uint64_t cursor = cursor_;
    const Lsn before = sent_.load(std::memory_order_relaxed);
    Lsn end = before;
    const Lsn wanted = barrier_wanted_.load();
    const auto records = ring_.next(cursor, max_batch, end);
    const Lsn barrier = wanted > barrier_sent_ && end >= wanted ? end : 0;
    if (records.empty() && barrier == 0) return Sent::all;
    cursor_ = cursor;
    cursor_shown_.store(cursor, std::memory_order_relaxed);
    // Before they leave: an acknowledgement is checked against it.
    sent_.store(end);
    if (barrier != 0) {
      barrier_sent_ = barrier;
      barriers_.fetch_add(1, std::memory_order_relaxed);
    }
    records_sent_.fetch_add(end - before, std::memory_order_relaxed);
    bytes_sent_.fetch_add(records.size(), std::memory_order_relaxed);
    sends_.fetch_add(1, std::memory_order_relaxed);
    const Io io = channel->send_records(records, barrier);
    if (io != Io::done) return io == Io::blocked ? Sent::blocked : Sent::closed;
    turn += records.size() + sizeof(BarrierBody);
  }
  return Sent::some;
}

}  // namespace holdfast::replica
