#pragma once
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "replica/log.h"
#include "replica/server.h"

/** A directory on a tmpfs of its own, in a mount namespace of its own, and a log that remembers. */
namespace holdfast::replica::test {

struct Kept {
  Lsn lsn;
  Kind kind;
  uint16_t flags;
  FileId file;
  size_t size;         // of the payload
  uint8_t bytes[400];  // its beginning
  std::string_view text(size_t at, size_t length) const {
    return {reinterpret_cast<const char*>(bytes + at), length};
  }
  template <typename Body>
  Body body() const {
    Body out;
    std::memcpy(static_cast<void*>(&out), bytes, sizeof out);
    return out;
  }
};

/** Where a process is killed, in a change that has one record. */
enum class KillAt { never, reserve, before_append, after_append, before_answer, after_answer };

/** In memory that several processes share: what a killed one put into its log stays. */
struct LogMemory {
  std::atomic<Lsn> last;
  std::atomic<uint32_t> count;
  std::atomic<int> armed;   // KillAt
  std::atomic<int> spared;  // so often that place is passed before
  std::atomic<bool> full;   // no room
  Kept records[2000];
};

template <typename T>
T* share() {
  void* memory =
      mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<T*>(memory);
}

class MemoryLog final : public Log {
 public:
  explicit MemoryLog(LogMemory& memory) : memory_(memory) {}

  bool reserve(size_t bytes, const Waiter& ready) override {
    die(KillAt::reserve);
    const std::lock_guard lock(mutex_);
    if (memory_.full) {
      ready_ = ready;
      return false;
    }
    reserved_ += bytes;
    return true;
  }
  void release(size_t bytes) override {
    const std::lock_guard lock(mutex_);
    reserved_ -= bytes;
  }
  Lsn append(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload) override {
    return append_noting(kind, flags, file, payload, nullptr);
  }
  Lsn append_noting(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload,
                    uint64_t* early) override {
    die(KillAt::before_append);
    Lsn lsn = 0;
    {
      const std::lock_guard lock(mutex_);
      lsn = memory_.last + 1;
      Kept kept{lsn, kind, flags, file, 0, {}};
      for (const iovec& part : payload) {
        const size_t room = kept.size < sizeof kept.bytes ? sizeof kept.bytes - kept.size : 0;
        if (part.iov_len > 0) {
          std::memcpy(kept.bytes + kept.size, part.iov_base, std::min(room, part.iov_len));
        }
        kept.size += part.iov_len;
      }
      if (on_append) on_append(kept);
      overdrawn_ = overdrawn_ || record_size(kept.size) > reserved_;
      reserved_ -= record_size(kept.size);
      memory_.records[memory_.count % 2000] = kept;
      if (early != nullptr) *early = lsn;
      memory_.count++;
      memory_.last = lsn;
    }
    die(KillAt::after_append);
    return lsn;
  }
  Lsn last() const override { return memory_.last; }
  void push() override { die(KillAt::after_answer); }
  bool sync(Lsn lsn, const Waiter& waiter) override {
    const std::lock_guard lock(mutex_);
    synced_ = lsn;
    if (hold_syncs) waiters_.push_back(waiter);
    return !hold_syncs;
  }
  bool strict() const override {
    // Asked when the change is made and in the log, and not answered.
    die(KillAt::before_answer);
    return is_strict;
  }
  bool receipt(Lsn lsn, const Waiter& waiter) override { return sync(lsn, waiter); }
  bool peer_space(uint32_t, uint64_t&, uint64_t&, uint32_t&, uint64_t&, uint64_t&) override {
    return false;
  }
  void local_failed(int, const char*) override { failures_++; }
  int failures() const { return failures_; }

  void make_room() {
    Waiter ready;
    {
      const std::lock_guard lock(mutex_);
      memory_.full = false;
      std::swap(ready, ready_);
    }
    if (ready.done != nullptr) ready.done(ready.context, ready.argument, 0);
  }
  size_t waiting() {
    const std::lock_guard lock(mutex_);
    return waiters_.size();
  }
  void acknowledge(int error = 0) {
    std::vector<Waiter> all;
    {
      const std::lock_guard lock(mutex_);
      all.swap(waiters_);
    }
    for (const Waiter& waiter : all) waiter.done(waiter.context, waiter.argument, error);
  }
  /** All that was set aside was used or given back, and nobody used more. */
  bool balanced() {
    const std::lock_guard lock(mutex_);
    return reserved_ == 0 && !overdrawn_;
  }
  std::vector<Kept> take() {
    const std::lock_guard lock(mutex_);
    std::vector<Kept> out(memory_.records + seen_, memory_.records + memory_.count);
    seen_ = memory_.count;
    return out;
  }
  Lsn synced() {
    const std::lock_guard lock(mutex_);
    return synced_;
  }

  std::atomic<bool> is_strict{false};
  std::atomic<bool> hold_syncs{false};
  /** Called with each record before it counts. */
  std::function<void(const Kept&)> on_append;

 private:
  void die(KillAt at) const {
    if (memory_.armed == static_cast<int>(at) && memory_.spared-- <= 0) raise(SIGKILL);
  }

  LogMemory& memory_;
  mutable std::mutex mutex_;
  size_t reserved_ = 0;
  bool overdrawn_ = false;
  Waiter ready_;
  std::vector<Waiter> waiters_;
  Lsn synced_ = 0;
  uint32_t seen_ = 0;
  std::atomic<int> failures_{0};
};

inline bool is_root() {
  if (geteuid() == 0) return true;
  MESSAGE("skipped: mounting needs root");
  return false;
}

/** A private mount namespace, once for the process; a tmpfs at `base`, the directory in it. */
class World {
 public:
  World() {
    static const bool entered =
        unshare(CLONE_NEWNS) == 0 && ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    char name[] = "/tmp/replica_server.XXXXXX";
    base = entered ? mkdtemp(name) : "";
    REQUIRE(!base.empty());
    REQUIRE(::mount("test", base.c_str(), "tmpfs", 0, "mode=755") == 0);
    dir = base + "/dir";
    REQUIRE(mkdir(dir.c_str(), 0755) == 0);
    shared = share<Shared>();
    memory = share<LogMemory>();
    REQUIRE((shared != nullptr && memory != nullptr));
    ids = std::make_unique<Ids>();
    REQUIRE(ids->open(base + "/ids").ok());
    tree = std::make_unique<Tree>(*ids, 64);
    Fd root(open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    under = Fd(dup(root.get()));
    REQUIRE(tree->add_volume(std::move(root)).ok());
    log = std::make_unique<MemoryLog>(*memory);
    options.threads = 2;
  }
  ~World() {
    if (server) server->stop(true);
    server.reset();
    kept.reset();
    tree.reset();
    under.reset();
    ids.reset();
    umount2(base.c_str(), MNT_DETACH);
    rmdir(base.c_str());
    munmap(shared, sizeof *shared);
    munmap(memory, sizeof *memory);
  }

  std::unique_ptr<Server> make_server() {
    return std::make_unique<Server>(*tree, *ids, *log, shared, options, events);
  }
  void mount() {
    server = make_server();
    REQUIRE(server->mount(0, dir.c_str(), kept) == 0);
    REQUIRE(server->start() == 0);
  }
  std::string path(const char* name) const { return dir + '/' + name; }

  std::string base, dir;
  Shared* shared = nullptr;
  LogMemory* memory = nullptr;
  ServerOptions options;
  NoEvents events;
  std::unique_ptr<Ids> ids;
  std::unique_ptr<Tree> tree;
  std::unique_ptr<MemoryLog> log;
  std::unique_ptr<Server> server;
  Fd under;  // the real directory
  Fd kept;
};

template <typename Condition>
bool eventually(Condition condition) {
  for (int i = 0; i < 5000; i++) {
    if (condition()) return true;
    usleep(1000);
  }
  return false;
}

}  // namespace holdfast::replica::test
