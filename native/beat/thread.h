#pragma once
#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdint>

#include "beat/engine.h"
#include "beat/model.h"
#include "beat/shm.h"
#include "common/fd.h"
#include "common/triple_buffer.h"

namespace holdfast::beat {

/**
 * The heartbeat thread: drives the Engine from sockets and a timer. SCHED_FIFO when permitted.
 * After start() it makes no call that can block but its one ppoll, and no allocation, lock or log.
 * All public functions are for the main thread; none waits for the heartbeat thread but stop().
 */
class HeartbeatThread final : private Port {
 public:
  /** `doorbell` is the socket to the agent; its number stays, what it refers to may change. */
  HeartbeatThread(uint64_t boot, Shared& shared, int doorbell, bool memory_locked)
      : shared_(shared), doorbell_(doorbell), locked_(memory_locked), engine_(boot, *this) {}

  /** Starts the thread; returns 0 or an errno. */
  int start();
  /** Ends the thread; all leases in use are released first. */
  void stop();

  Config& config_draft() { return configs_.draft(); }
  void publish_config();
  /** The agent announced something in the shared memory; false: it makes no sense. */
  bool announced();
  /** Has everything known sent as events again. */
  void request_resync();
  void set_agent_restarts(uint32_t count) {
    agent_restarts_.store(count, std::memory_order_relaxed);
  }

  /** Generation of the configuration in use: what older ones referred to may be closed. */
  uint64_t generation() const { return generation_.load(std::memory_order_acquire); }
  /** Boot time of the thread's last turn: proof that it runs. */
  int64_t last_turn() const { return last_turn_.load(std::memory_order_relaxed); }
  bool realtime() const { return realtime_; }

 private:
  int send(uint32_t lan, uint32_t node, const uint8_t* data, size_t size) override;
  void event(const Event& event) override;

  static void* run(void* self);
  void loop();
  void wait(bool paused);
  bool drain();
  bool drain_lan(uint32_t lan);
  void take_commands();
  void take_announcement(int64_t now);
  void finish_turn(int64_t now);
  void wake();

  Shared& shared_;
  const int doorbell_;
  const bool locked_;
  bool realtime_ = false;
  Engine engine_;
  Config config_;
  Stats stats_{};
  TripleBuffer<Config> configs_;
  Announcement announcement_{};
  uint64_t announcement_seen_ = 0;  // of the seqlock
  uint64_t acted_by_ = 0;           // number of the newest announcement that made sense
  std::atomic<bool> resync_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<uint32_t> agent_restarts_{0};
  std::atomic<uint64_t> generation_{0};
  std::atomic<int64_t> last_turn_{0};
  Fd timer_;
  Fd waker_;
  pthread_t thread_{};
  bool started_ = false;
  bool emitted_ = false;
  int64_t stats_at_ = 0;
  int64_t timer_at_ = 0;   // what the timer is set to; 0: it has fired
  bool deadline_ = false;  // the timer fired in this turn
  bool waiting_[max_lans] = {};
  // When the socket of each network was last seen empty: nothing in it arrived earlier.
  int64_t emptied_at_[max_lans] = {};
};

}  // namespace holdfast::beat
