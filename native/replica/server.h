#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/fd.h"
#include "replica/events.h"
#include "replica/ids.h"
#include "replica/log.h"
#include "replica/shared.h"
#include "replica/tree.h"

namespace holdfast::replica {

class Locks;
class Marks;

struct ServerOptions {
  unsigned threads = 8;           // per mounted directory; one in fsync waits for its disk
  uint64_t epoch = 1;             // of the ids that are made
  std::vector<std::string> skip;  // rules of what is not replicated (skip.h)
  Marks* marks = nullptr;         // of what may differ from the peer; none: not replicated
  /** A file without a name is open: its descriptor must outlive this process; and no longer. */
  std::function<void(FileId, int fd)> keep;
  std::function<void(FileId)> drop;
};

struct ServerStatus {
  uint32_t minor = 0;  // protocol 7.minor
  uint64_t flags = 0;  // FUSE_* as agreed on
  uint32_t max_write = 0;
  bool resend = false;    // FUSE_NOTIFY_RESEND: a killed worker costs no error
  uint64_t requests = 0;  // read from the kernel
  uint64_t changes = 0;   // requests that changed something
  uint64_t again = 0;     // requests that the kernel sent again
  uint64_t finished = 0;  // changes of an earlier process that were finished
  uint64_t parked = 0;    // requests that waited for room, in all
  uint64_t parked_now = 0;
  uint64_t sync_failures = 0;  // failed fsync, fdatasync, O_DSYNC writes
  uint64_t mounts_gone = 0;    // unmounted by somebody else
};

/**
 * The file system server: the replicated directories, mounted over themselves by FUSE. Reads and
 * attributes come from the real directory, changes are made there and put into the log, in the
 * order in which they took effect. The log, ids and tree outlive it; every waiter that it gave to
 * the log must have been called before it is destroyed.
 */
class Server {
 public:
  /** `shared` nullptr: nothing is to outlive the process. */
  Server(Tree& tree, Ids& ids, Log& log, Shared* shared, ServerOptions options, Events& events);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /**
   * Mounts the volume (its number in the tree) over `path` and agrees with the kernel on the
   * protocol. `kept` becomes a second descriptor of the connection, for the holder. After `start`,
   * nothing that it opened or knew is in use by the kernel: opens are forgotten. 0 or errno;
   * EINVAL also for a rule of `skip` that is none.
   */
  int mount(uint8_t volume, const char* path, Fd& kept);
  /**
   * Goes on with a connection that an earlier process had, with what `shared` says was agreed on.
   * EOPNOTSUPP: the kernel cannot send again what had no answer; abort it and mount anew.
   */
  int adopt(uint8_t volume, const char* path, Fd fuse);
  /** A file without a name that an earlier process gave away by `keep`. Before `start`. */
  void adopt_file(FileId id, Fd fd);
  /** Finishes what an earlier process had begun, starts the threads, asks for what has no answer.
   */
  int start();
  /**
   * Ends the threads. With `unmount` the directories are unmounted first, while they are still
   * served; one that is busy for longer than `wait_ms` is detached, and its open files get errors
   * from then on. Without, the kernel's requests wait for the next process. Blocks.
   */
  void stop(bool unmount, int wait_ms = 2000);

  ServerStatus status() const;
  /** p99 of how long the application waited for a change, or for one to be durable, in the last
   * second; 0: there was none. What waited for room in the log is not in it. Any thread. */
  int64_t change_p99_ns() const;
  /** The locks of the files, for a comparison (verify.h); they live as long as the server. */
  Locks& locks();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::replica
