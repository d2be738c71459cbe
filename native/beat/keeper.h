#pragma once
#include <sys/signalfd.h>
#include <sys/types.h>

#include <cstdint>

#include "beat/control.h"
#include "beat/shm.h"
#include "beat/thread.h"
#include "common/fd.h"

namespace holdfast::beat {

struct KeeperOptions {
  char* const* command = nullptr;  // the agent, null-terminated
  int64_t stop_timeout_ns = 0;     // how long the agent may take to end
};

/**
 * The main thread of holdfastd: keeps one agent running, passes signals on, speaks with the service
 * manager. The heartbeat thread goes on whatever happens here.
 */
class Keeper {
 public:
  explicit Keeper(const KeeperOptions& options) : options_(options) {}
  ~Keeper();
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;
  /** Runs until the agent has ended for good; returns the exit code of the process. */
  int run();

 private:
  int prepare();
  void start();
  void turn();
  void take_signal(const signalfd_siginfo& signal);
  void stop_agent();
  void reap();
  void agent_ended(int status);
  void feed_watchdog(int64_t now);
  int64_t next_due(int64_t now) const;
  void log(const char* level, const char* what, const char* format, ...) const
      __attribute__((format(printf, 4, 5)));

  const KeeperOptions options_;
  Fd signals_;
  Fd shm_;
  Fd doorbell_;  // own end of the socket; the number stays, each agent gets a new pair
  bool connected_ = false;
  Shared* shared_ = nullptr;
  HeartbeatThread* thread_ = nullptr;
  Control* control_ = nullptr;
  bool locked_ = false;
  pid_t agent_ = 0;  // 0: none runs
  int64_t started_at_ = 0;
  int64_t restart_at_ = 0;
  int64_t kill_at_ = 0;  // the agent had its time to stop; 0: not stopping
  int64_t retry_at_ = 0;
  int64_t watchdog_at_ = 0;
  int64_t watchdog_ns_ = 0;
  uint32_t restarts_ = 0;
  uint32_t quick_deaths_ = 0;
  bool stopping_ = false;
  bool done_ = false;
  int exit_code_ = 0;
};

}  // namespace holdfast::beat
