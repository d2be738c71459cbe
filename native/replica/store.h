#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

#include "common/fd.h"
#include "common/result.h"

/**
 * Descriptors that must outlive the worker lie with the holder. The two speak over a
 * SOCK_SEQPACKET pair; one message is a StoreHead and at most one descriptor (SCM_RIGHTS).
 */
namespace holdfast::replica {

enum class StoreVerb : uint32_t {
  keep = 1,  // to the holder, with a descriptor
  drop = 2,  // to the holder
  here = 3,  // to a new worker: one that was kept
  end = 4,   // that was all; both ways
  quit = 5,  // to the holder: when this worker ends, end too
};

enum class StoreKind : uint32_t {
  fuse = 1,       // /dev/fuse of volume `key`
  directory = 2,  // directory of volume `key`, opened before anything was mounted over it
  open_file = 3,  // an open file without a name; `key` is its FileId
};

struct StoreHead {
  uint32_t verb;
  uint32_t kind;
  uint64_t key;
};
static_assert(sizeof(StoreHead) == 16);

struct StoreMessage {
  StoreVerb verb = StoreVerb::end;
  StoreKind kind = StoreKind::fuse;
  uint64_t key = 0;
  Fd fd;
};

/** The most descriptors that are kept; more are refused with ENFILE and counted by the caller. */
inline constexpr size_t max_kept = 60'000;

/** A pair of sockets for the store, both close-on-exec. */
Result<std::pair<Fd, Fd>> store_pair();

/** Sends one message; `fd` stays the caller's, -1: none. 0, or errno (EPIPE: nobody there). */
int store_send(int socket, StoreVerb verb, StoreKind kind, uint64_t key, int fd);

/** Receives one message. 0; EPIPE: the other end is closed and nothing is left; EBADMSG: it is not
 * a message of this protocol; EAGAIN with `wait` false when there is none. */
int store_receive(int socket, bool wait, StoreMessage& out);

/** Descriptors by kind and key, in the order of kinds: a session of FUSE comes before its files. */
using Kept = std::map<std::pair<StoreKind, uint64_t>, Fd>;

/** The worker's side. It has a copy of everything, so that a holder that died can be replaced.
 * Every call is safe from any thread. */
class Store {
 public:
  explicit Store(Fd socket) : socket_(std::move(socket)) {}

  /** Takes what the holder has, at the start. 0 or errno. */
  int load();
  /** Keeps a copy of `fd` here and with the holder. ENFILE: too many. A dead holder is no error:
   * the next one gets it. */
  int keep(StoreKind kind, uint64_t key, int fd);
  void drop(StoreKind kind, uint64_t key);
  /** Drops all of a kind. */
  void drop_all(StoreKind kind);
  /** A copy of what is kept, -1 in it when there is none. */
  Fd get(StoreKind kind, uint64_t key) const;
  /** Calls `each(key, fd)` for all of a kind; the descriptor is borrowed. */
  template <typename Each>
  void for_each(StoreKind kind, Each each) const {
    std::lock_guard lock(mutex_);
    for (const auto& [name, fd] : kept_)
      if (name.first == kind) each(name.second, fd.get());
  }
  size_t count() const;
  /** Everything to a new holder. */
  int replace(Fd socket);
  /** Tells the holder to end with this worker. */
  int quit();

 private:
  mutable std::mutex mutex_;
  Fd socket_;
  Kept kept_;
};

}  // namespace holdfast::replica
