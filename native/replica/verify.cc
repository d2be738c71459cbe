#include "replica/verify.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "replica/locks.h"
#include "replica/log.h"

namespace holdfast::replica {
namespace {

using Clock = std::chrono::steady_clock;

/** Waits until the log says that it may have room again. Outlives the wait: the log may call late.
 */
struct Wake {
  std::mutex mutex;
  std::condition_variable changed;
  bool ready = false;
  int error = 0;
};

void woken(void* context, uint64_t, int error) {
  const std::unique_ptr<std::shared_ptr<Wake>> wake(static_cast<std::shared_ptr<Wake>*>(context));
  const std::lock_guard lock((*wake)->mutex);
  (*wake)->ready = true;
  (*wake)->error = error;
  (*wake)->changed.notify_all();
}

class Driver {
 public:
  Driver(const Tree& tree, const Ids& ids, Locks& locks, Log& log, const VerifyOptions& options,
         VerifyProgress& progress, int patience_ms)
      : tree_(tree),
        ids_(ids),
        locks_(locks),
        log_(log),
        options_(options),
        progress_(progress),
        patience_(patience_ms),
        began_(Clock::now()) {}

  int run() {
    ids_.for_each(
        [](void* self, const IdEntry& entry) { return static_cast<Driver*>(self)->one(entry); },
        this);
    if (error_ != 0) return error_;
    CheckBody body = body_of(Check::end, 0);
    body.size = progress_.files;
    if (const int error = room(); error != 0) return error;
    append(1, body, {});
    log_.push();
    return 0;
  }

 private:
  CheckBody body_of(Check kind, size_t count) const {
    return {static_cast<uint32_t>(kind), static_cast<uint32_t>(count), options_.run, 0, 0};
  }

  /** False: the walk is over. */
  bool one(const IdEntry& entry) {
    error_ = progress_.stop ? ECANCELED : file(entry);
    return error_ == 0;
  }

  int file(const IdEntry& entry) {
    if ((entry.flags & (id_local | id_unlinked)) != 0) return 0;
    // Each server's administrator made its own roots: what they are was never in a record.
    if (entry.id > max_root) {
      if (const int error = whole(entry.id, Check::attributes); error != 0) return gone(error);
    }
    if (entry.type == S_IFDIR) {
      if (const int error = whole(entry.id, Check::entries); error != 0) return gone(error);
    }
    uint64_t offset = 0;
    while (entry.type == S_IFREG && offset != ~uint64_t{0}) {
      if (progress_.stop) return ECANCELED;
      if (const int error = piece(entry.id, offset); error != 0) return gone(error);
    }
    progress_.files++;
    return 0;
  }

  /** A file that was removed while it was looked for is none to compare. */
  static int gone(int error) { return error == ESTALE ? 0 : error; }

  /** The file, under its lock, if it is still one to compare. A descriptor of its own: the cache
   * is the application's. */
  int open(FileId id, FileRef& out) const {
    IdEntry entry;
    if (!ids_.get(id, entry) || (entry.flags & (id_local | id_unlinked)) != 0) return ESTALE;
    return open_quietly(tree_, entry, out);
  }

  int whole(FileId id, Check kind) {
    if (const int error = room(); error != 0) return error;
    const Locks::Hold hold(locks_, id);
    FileRef file;
    if (const int error = open(id, file); error != 0) return unused(error);
    std::vector<Hash> hash(1);
    CheckBody body = body_of(kind, 1);
    const int error = kind == Check::attributes
                          ? hash_attributes(*file, hash[0])
                          : hash_entries(tree_, ids_, *file, hash[0], body.size);
    if (error != 0) return unused(error);
    append(id, body, hash);
    return 0;
  }

  /** The leaves at `offset`, which moves on; ~0 after the last. */
  int piece(FileId id, uint64_t& offset) {
    if (const int error = room(); error != 0) return error;
    const Locks::Hold hold(locks_, id);
    FileRef file;
    if (const int error = open(id, file); error != 0) return unused(error);
    std::vector<Hash> hashes;
    CheckBody body = body_of(Check::data, 0);
    const int error = hash_leaves(file->fd.get(), offset, leaves_per_check, hashes, body.size);
    if (error != 0) return unused(error);
    body.offset = offset;
    body.count = static_cast<uint32_t>(hashes.size());
    append(id, body, hashes);
    const uint64_t done = hashes.size() * leaf_size;
    progress_.bytes += std::min(done, body.size - std::min(body.size, offset));
    offset += done;
    if (offset >= body.size) offset = ~uint64_t{0};
    return 0;
  }

  static constexpr size_t most_payload = sizeof(CheckBody) + leaves_per_check * sizeof(Hash);

  /** Room for one check record, and the pace. No lock is held. */
  int room() {
    pace();
    const auto until = Clock::now() + patience_;
    for (;;) {
      auto wake = std::make_shared<Wake>();
      const Waiter waiter{woken, new std::shared_ptr<Wake>(wake), 0};
      if (log_.reserve(record_size(most_payload), waiter)) {
        delete static_cast<std::shared_ptr<Wake>*>(waiter.context);
        return 0;
      }
      std::unique_lock lock(wake->mutex);
      // Once a second also for `stop`.
      const auto next = std::min(until, Clock::now() + std::chrono::seconds(1));
      while (!wake->ready && !progress_.stop && Clock::now() < next) {
        wake->changed.wait_until(lock, next);
      }
      if (progress_.stop) return ECANCELED;
      if (wake->error != 0 || Clock::now() >= until) return ENOSPC;
    }
  }

  int unused(int error) {
    log_.release(record_size(most_payload));
    return error;
  }

  void append(FileId id, const CheckBody& body, const std::vector<Hash>& hashes) {
    const iovec parts[2] = {{const_cast<CheckBody*>(&body), sizeof body},
                            {const_cast<Hash*>(hashes.data()), hashes.size() * sizeof(Hash)}};
    const size_t size = sizeof body + hashes.size() * sizeof(Hash);
    log_.append(Kind::check, 0, id, parts);
    if (const size_t rest = record_size(most_payload) - record_size(size); rest > 0) {
      log_.release(rest);
    }
  }

  /** Not more bytes than the rate allows; sends what waits before it sleeps. */
  void pace() {
    const double due = static_cast<double>(progress_.bytes) /
                       static_cast<double>(std::max<uint64_t>(1, options_.bytes_per_second));
    const auto at =
        began_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(due));
    if (at <= Clock::now()) return;
    log_.push();
    std::unique_lock lock(pause_.mutex);
    while (!progress_.stop && Clock::now() < at) {
      pause_.changed.wait_until(lock, std::min(at, Clock::now() + std::chrono::seconds(1)));
    }
  }

  const Tree& tree_;
  const Ids& ids_;
  Locks& locks_;
  Log& log_;
  const VerifyOptions& options_;
  VerifyProgress& progress_;
  const std::chrono::milliseconds patience_;
  const Clock::time_point began_;
  Wake pause_;
  int error_ = 0;
};

}  // namespace

int run_verify(const Tree& tree, const Ids& ids, Locks& locks, Log& log,
               const VerifyOptions& options, VerifyProgress& progress, int patience_ms) {
  return Driver(tree, ids, locks, log, options, progress, patience_ms).run();
}

}  // namespace holdfast::replica
