#pragma once
#include <atomic>
#include <functional>
#include <thread>

#include "common/fd.h"
#include "common/result.h"
#include "common/spsc_ring.h"
#include "link/address.h"

namespace holdfast::link {

struct MonitorEvent {
  enum class Kind : uint8_t { link, address, overrun };
  Kind kind;
  /** Link: up with carrier. Address: added. */
  bool on;
  int32_t index;
  char name[16];
  Address address;
};

/**
 * A thread that listens to the kernel's messages about links and addresses. `ring` is called on
 * that thread when events wait, once until the next drain. Lost messages become one `overrun`
 * event: the listener reads everything anew.
 */
class Monitor {
 public:
  Monitor() = default;
  ~Monitor() { stop(); }
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  Result<int> start(std::function<void()> ring);
  /** Ends and joins the thread; idempotent. */
  void stop();
  /** Takes up to `limit` events; returns how many. */
  uint32_t drain(MonitorEvent* out, uint32_t limit);

 private:
  void run();
  /** Reads one batch of messages; false when the socket is beyond use. */
  bool take();
  void take_message(const void* message);
  void push(const MonitorEvent& event);

  Fd socket_;
  Fd wake_;
  std::thread thread_;
  std::function<void()> ring_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> rung_{false};
  /** Set when an event found the ring full; becomes an overrun event at the next chance. */
  std::atomic<bool> overrun_{false};
  /** 512 events of 40 bytes: a burst of all addresses of a farm server fits many times. */
  SpscRing<MonitorEvent, 512> events_{};
};

}  // namespace holdfast::link
