#pragma once
#include <array>
#include <cstring>
#include <span>
#include <type_traits>

#include "replica/frames.h"
#include "replica/tls.h"

/** Frames (frames.h) on a TLS connection; the same class on both sides. */
namespace holdfast::replica {

/** The largest body of a frame that is not `records`. */
inline constexpr size_t max_control = 64 * 1024;
/** What may wait to be sent besides borrowed records; a peer that reads nothing ends here. */
inline constexpr size_t max_waiting = 4 * max_control;

/**
 * Sending: any thread, also several. Receiving: one thread, which polls fd() for POLLIN (and for
 * POLLOUT while `sending()`), and then calls `next` until it says blocked.
 */
class Channel {
 public:
  Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  /** See TlsStream::start. */
  Result<bool> start(const TlsIdentity& identity, Fd socket, TlsStream::Side side,
                     const SocketOptions& options, int64_t deadline_ns, int cancel) {
    return stream_.start(identity, std::move(socket), side, options, deadline_ns, cancel);
  }

  int fd() const { return stream_.fd(); }

  /** Queues a small frame (its body is copied) and sends what the socket takes. blocked: the rest
   * goes with a later call, or `flush` when the socket is writable. closed ENOBUFS: too much. */
  Io post(Frame type, const void* body = nullptr, size_t size = 0);
  template <typename T>
  Io post(Frame type, const T& body) {
    static_assert(std::is_trivially_copyable_v<T>);
    return post(type, &body, sizeof body);
  }

  /**
   * Sends a `records` frame whose body stays where it is, and after it, in the same go, a barrier
   * when `barrier` is not 0. Only when `sending()` is false. The records must stay as they are
   * until a call says done, or the connection is closed.
   */
  Io send_records(std::span<const uint8_t> records, Lsn barrier);

  /** Sends what waits. */
  Io flush();
  /** True: something waits for the socket to become writable. */
  bool sending() const { return sending_.load(std::memory_order_acquire); }

  /**
   * The next frame. done: `head` is its head; of all types but `records` the whole body is in
   * control(). Of a `records` frame the body is to be read with `records` before the next call.
   * closed EPROTO: a type or size that does not exist.
   */
  Io next(FrameHead& head);
  /** Body of the frame that `next` returned; valid until the next call. */
  std::span<const uint8_t> control() const { return {control_.data(), control_size_}; }
  /** The body as `T`; false when the sizes differ. */
  template <typename T>
  bool body(T& out) const {
    static_assert(std::is_trivially_copyable_v<T>);
    if (control_size_ != sizeof(T)) return false;
    std::memcpy(&out, control_.data(), sizeof(T));
    return true;
  }
  /** Bytes of the `records` frame that are still to be read. */
  size_t records_left() const { return records_left_; }
  /** Reads up to `size` of them straight into `to`; done: `got` of them, at least one. */
  Io records(uint8_t* to, size_t size, size_t& got);

  /** Waits for the next frame until `deadline_ns`: for hello and welcome. 0, or ETIMEDOUT,
   * ECANCELED (`cancel` readable), or why it is closed. */
  int await(FrameHead& head, int64_t deadline_ns, int cancel);

  /** See TlsStream. */
  void shut(int error) { stream_.shut(error); }
  int error() const { return stream_.error(); }
  /** Plain bytes, both ways. */
  uint64_t bytes_sent() const { return bytes_sent_.load(std::memory_order_relaxed); }
  uint64_t bytes_received() const { return bytes_received_.load(std::memory_order_relaxed); }

 private:
  bool queue(Frame type, const void* body, size_t size);
  Io flush_locked();
  Io fill(uint8_t* to, size_t size, size_t& have);

  TlsStream stream_;

  std::mutex send_mutex_;
  std::vector<uint8_t> before_;  // goes first
  size_t before_at_ = 0;
  std::span<const uint8_t> borrowed_;  // then these records
  std::vector<uint8_t> after_;         // then what was posted meanwhile
  std::atomic<bool> sending_{false};
  std::atomic<uint64_t> bytes_sent_{0};

  std::array<uint8_t, sizeof(FrameHead)> head_{};  // the reading thread's, as all below
  size_t head_have_ = 0;
  FrameHead now_{};  // its body is being read when head_have_ is complete
  std::vector<uint8_t> control_;
  size_t control_have_ = 0;
  size_t control_size_ = 0;
  size_t records_left_ = 0;
  std::atomic<uint64_t> bytes_received_{0};
};

}  // namespace holdfast::replica
