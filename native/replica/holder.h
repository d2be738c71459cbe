#pragma once
#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/fd.h"
#include "common/result.h"
#include "replica/store.h"

/**
 * The process that stays: it keeps the descriptors that the worker needs and starts the worker
 * again whenever that dies. It parses nothing, allocates next to nothing and touches no file of the
 * mirror, so that there is little in it that could fail.
 */
namespace holdfast::replica {

/** Where descriptors lie in a process that was started with them. */
inline constexpr int listener_fd = 3;  // control listener
inline constexpr int shared_fd = 4;    // shared memory (shared.h)
inline constexpr int store_fd = 5;     // this end of the fd store
inline constexpr int other_fd = 6;     // pidfd of the other process: holder or worker

/** The command line, of all three ways to start: holder, worker, holder for a running worker. */
struct Options {
  enum class Mode { holder, worker, adopt };
  Mode mode = Mode::holder;
  std::string control;        // path of the control socket
  std::string name;           // of the mirror, for ps and mount
  std::string log;            // file for what would go to stderr; empty: nowhere
  uint64_t ring = 64u << 20;  // bytes
  uint64_t restarts = 0;      // workers before this one
  uint64_t died_ns = 0;       // CLOCK_MONOTONIC when the last worker's death was noticed, 0: none
};

/** Reads the command line; empty text, or what is wrong with it. */
std::string parse_options(int count, char** arguments, Options& out);

/**
 * Starts this executable again (whatever has become of its file) with `arguments`, in a session of
 * its own, with `fds` as descriptors 3, 4, … and no other ones above 2. The pid, or posix_spawn's
 * error.
 */
Result<pid_t> spawn_self(const Options& options, Options::Mode mode, std::span<const int> fds);

/** pidfd_open(2), close-on-exec. */
Result<Fd> open_pidfd(pid_t pid);

/** Waits before the next start when a process dies again and again: nothing for the first 5
 * deaths within a second, then 100 ms, doubled each time, at most 5 s. */
class Backoff {
 public:
  /** Tells of a death at this time; milliseconds to wait. */
  int died(uint64_t now_ns);

 private:
  uint64_t first_ns_ = 0;
  int deaths_ = 0;
  int wait_ms_ = 0;
};

/** Serves as the holder until the worker says quit; the exit code. `worker` is a running worker's
 * pidfd and `store` the holder's end of its store, or both are none. */
int run_holder(const Options& options, Fd listener, Fd shared, Fd worker, Fd store);

/** Makes the control socket (mode 0600) and listens. EADDRINUSE: somebody answers there. */
Result<Fd> listen_control(const std::string& path);

/** Makes the shared memory, empty, with `ring` bytes for records. */
Result<Fd> make_shared_memory(uint64_t ring);

}  // namespace holdfast::replica
