#include "replica/channel.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "common/clock.h"

namespace holdfast::replica {
namespace {

bool known(uint32_t type) {
  return type >= static_cast<uint32_t>(Frame::hello) && type <= static_cast<uint32_t>(last_frame);
}

bool allowed(const FrameHead& head) {
  if (!known(head.type)) return false;
  if (head.type != static_cast<uint32_t>(Frame::records)) return head.size <= max_control;
  return head.size >= sizeof(RecordHead) && head.size <= max_frame && head.size % record_align == 0;
}

}  // namespace

/** Adds a frame behind all that waits; false: too much waits. */
bool Channel::queue(Frame type, const void* body, size_t size) {
  const size_t waiting = before_.size() - before_at_ + after_.size();
  if (size > max_control || waiting + sizeof(FrameHead) + size > max_waiting) return false;
  std::vector<uint8_t>& to = borrowed_.empty() ? before_ : after_;
  const FrameHead head{static_cast<uint32_t>(type), static_cast<uint32_t>(size)};
  const auto* head_bytes = reinterpret_cast<const uint8_t*>(&head);
  const auto* bytes = static_cast<const uint8_t*>(body);
  to.insert(to.end(), head_bytes, head_bytes + sizeof head);
  if (size > 0) to.insert(to.end(), bytes, bytes + size);
  return true;
}

Io Channel::post(Frame type, const void* body, size_t size) {
  const std::lock_guard lock(send_mutex_);
  if (!queue(type, body, size)) {
    stream_.shut(ENOBUFS);
    return Io::closed;
  }
  return flush_locked();
}

Io Channel::send_records(std::span<const uint8_t> records, Lsn barrier) {
  const std::lock_guard lock(send_mutex_);
  if (!borrowed_.empty() || records.size() > max_frame) {
    stream_.shut(EINVAL);
    return Io::closed;
  }
  if (!records.empty()) {
    const FrameHead head{static_cast<uint32_t>(Frame::records),
                         static_cast<uint32_t>(records.size())};
    const auto* bytes = reinterpret_cast<const uint8_t*>(&head);
    before_.insert(before_.end(), bytes, bytes + sizeof head);
    borrowed_ = records;
  }
  const BarrierBody body{barrier};
  if (barrier != 0 && !queue(Frame::barrier, &body, sizeof body)) {
    stream_.shut(ENOBUFS);
    return Io::closed;
  }
  return flush_locked();
}

Io Channel::flush() {
  const std::lock_guard lock(send_mutex_);
  return flush_locked();
}

Io Channel::flush_locked() {
  const iovec parts[3] = {
      {before_.data() + before_at_, before_.size() - before_at_},
      {const_cast<uint8_t*>(borrowed_.data()), borrowed_.size()},
      {after_.data(), after_.size()},
  };
  size_t taken = 0;
  const Io io = stream_.write(parts, 3, taken);
  bytes_sent_.fetch_add(taken, std::memory_order_relaxed);

  const size_t from_before = std::min(taken, parts[0].iov_len);
  const size_t from_borrowed = std::min(taken - from_before, borrowed_.size());
  const size_t from_after = taken - from_before - from_borrowed;
  before_at_ += from_before;
  borrowed_ = borrowed_.subspan(from_borrowed);
  if (before_at_ == before_.size()) {
    before_.clear();
    before_at_ = 0;
    if (borrowed_.empty()) {
      std::swap(before_, after_);
      before_at_ = from_after;
      if (before_at_ == before_.size()) {
        before_.clear();
        before_at_ = 0;
      }
    }
  }
  sending_.store(io == Io::blocked, std::memory_order_release);
  return io;
}

/** Goes on filling `to` up to `size` bytes. */
Io Channel::fill(uint8_t* to, size_t size, size_t& have) {
  while (have < size) {
    size_t got = 0;
    const Io io = stream_.read(to + have, size - have, got);
    if (io != Io::done) return io;
    have += got;
    bytes_received_.fetch_add(got, std::memory_order_relaxed);
  }
  return Io::done;
}

Io Channel::next(FrameHead& head) {
  if (records_left_ > 0) {
    stream_.shut(EINVAL);
    return Io::closed;
  }
  if (head_have_ < head_.size()) {
    const Io io = fill(head_.data(), head_.size(), head_have_);
    if (io != Io::done) return io;
    std::memcpy(&now_, head_.data(), sizeof now_);
    control_have_ = 0;
    if (!allowed(now_)) {
      stream_.shut(EPROTO);
      return Io::closed;
    }
  }
  if (now_.type == static_cast<uint32_t>(Frame::records)) {
    control_size_ = 0;
    records_left_ = now_.size;
  } else {
    if (control_.size() < now_.size) control_.resize(now_.size);
    const Io io = fill(control_.data(), now_.size, control_have_);
    if (io != Io::done) return io;
    control_size_ = now_.size;
  }
  head_have_ = 0;
  head = now_;
  return Io::done;
}

Io Channel::records(uint8_t* to, size_t size, size_t& got) {
  got = 0;
  if (records_left_ == 0 || size == 0) return Io::done;
  const Io io = stream_.read(to, std::min(size, records_left_), got);
  if (io != Io::done) return io;
  records_left_ -= got;
  bytes_received_.fetch_add(got, std::memory_order_relaxed);
  return Io::done;
}

int Channel::await(FrameHead& head, int64_t deadline_ns, int cancel) {
  for (;;) {
    const Io io = next(head);
    if (io == Io::done) return 0;
    if (io == Io::closed) return error();
    const int64_t left = deadline_ns - boot_ns();
    if (left <= 0) return ETIMEDOUT;
    const int64_t ms = std::min<int64_t>((left + ns_per_ms - 1) / ns_per_ms, INT_MAX);
    pollfd wait[2] = {{fd(), static_cast<short>(POLLIN | (sending() ? POLLOUT : 0)), 0},
                      {cancel, POLLIN, 0}};
    if (poll(wait, cancel >= 0 ? 2 : 1, static_cast<int>(ms)) < 0 && errno != EINTR) return errno;
    if (wait[1].revents != 0) return ECANCELED;
    if ((wait[0].revents & POLLOUT) != 0 && flush() == Io::closed) return error();
  }
}

}  // namespace holdfast::replica
