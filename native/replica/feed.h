#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "replica/applier.h"
#include "replica/journal.h"

/**
 * Takes the records that are durable in the journal, in order, to the applier: from memory while it
 * keeps up, otherwise from the journal. So what waits to be applied is bounded by the journal
 * alone, and the receiving thread never waits for the applier.
 */
namespace holdfast::replica {

/** The applier, as the feed's thread sees it (applier.h says what each does). */
class ApplyTarget {
 public:
  virtual ~ApplyTarget() = default;
  virtual bool submit(Batch batch) = 0;
  virtual bool end_replay() = 0;
  virtual bool drain() = 0;
  virtual Result<JournalPoint> checkpoint() = 0;
  /** Nothing is queued or under way: what comes is applied by the rules of a resync, after `at`. 0
   * or errno. */
  virtual int begin_resync(const JournalPoint& at) = 0;
};

struct FeedOptions {
  uint64_t checkpoint_bytes = 64u << 20;
  int64_t checkpoint_ms = 5000;  // after the first change that has none
};

/** Called from the feed's thread. */
struct FeedHooks {
  std::function<int(const JournalPoint&)> save;  // the checkpoint, durable when it returns 0
  std::function<void()> moved;                   // a checkpoint freed journal, or the feed failed
};

class Feed {
 public:
  /** Memory that is received into; several batches lie in one. */
  struct Buffer {
    AlignedBuffer memory;
    unsigned users = 0;  // one each for the receiver, a waiting chunk, a batch at the applier
    unsigned lent = 0;   // batches at the applier
  };
  static constexpr size_t buffer_bytes = 4u << 20;
  static constexpr unsigned buffers = 5;

  Feed(const Journal& journal, ApplyTarget& target, FeedHooks hooks);
  ~Feed();
  Feed(const Feed&) = delete;
  Feed& operator=(const Feed&) = delete;

  /** Starts the thread: what lies between the two points is replayed. */
  void start(const JournalPoint& checkpoint, const JournalPoint& end, const FeedOptions& options);

  /** A buffer that nobody uses; never waits: what waits in memory is forgotten for it (the journal
   * has it). The receiver has at most two at a time and gives each back with `drop`. */
  Buffer* take();
  void drop(Buffer* buffer);
  /** Records that are durable now: `size` bytes at `offset`, from `at` to `end` in the journal. */
  void add(Buffer* buffer, size_t offset, size_t size, const JournalPoint& at,
           const JournalPoint& end);
  /** The journal is full: a checkpoint is wanted as soon as it frees something. */
  void urge();
  /** The applier stopped, or the journal cannot be read: `moved` is called. Any thread. */
  void fail(int error, const char* call);

  /**
   * Has everything applied and makes a checkpoint, then stands still: `moved` is called, and
   * `resting` is true. The journal's end is a checkpoint then, and nobody reads the journal.
   */
  void rest();
  bool resting() const { return resting_.load(std::memory_order_acquire); }
  /** Goes on where it is. */
  void wake_up();
  /** Goes on from there, after a rest: what was given before counts no more. */
  void restart(const JournalPoint& at);

  /** Everything before this cursor is no longer needed. */
  uint64_t freed() const { return freed_.load(std::memory_order_acquire); }
  uint64_t checkpoints() const { return checkpoints_.load(std::memory_order_relaxed); }
  /** Bytes that went to the applier from the journal instead of from memory. */
  uint64_t read_back() const { return read_back_.load(std::memory_order_relaxed); }
  /** 0, or why it stopped; `failed_call` names what failed. */
  int error() const { return error_.load(std::memory_order_acquire); }
  const char* failed_call() const { return failed_call_.load(std::memory_order_relaxed); }

  /** Has everything applied, makes a checkpoint, ends the thread. Where that checkpoint is. */
  Result<JournalPoint> finish();
  /** Ends the thread. The applier must not wait for anything, or be stopped before. */
  void stop();

 private:
  struct Chunk {
    Buffer* buffer;
    size_t offset, size;
    JournalPoint at, end;
  };
  /** The buffers. Batches at the applier keep it alive. */
  struct Pool {
    std::mutex mutex;
    std::vector<std::unique_ptr<Buffer>> all;
  };

  void run();
  bool wait_for_work(std::unique_lock<std::mutex>& lock);
  void stand_still(std::unique_lock<std::mutex>& lock);
  void wait_for_records(std::unique_lock<std::mutex>& lock);
  bool from_memory(std::unique_lock<std::mutex>& lock);
  bool lend(Buffer* buffer);
  bool from_journal(uint64_t limit);
  bool submit(Batch batch);
  bool due() const;
  bool checkpoint();

  const Journal& journal_;
  ApplyTarget& target_;
  const FeedHooks hooks_;
  FeedOptions options_;
  std::thread thread_;
  std::shared_ptr<Pool> pool_ = std::make_shared<Pool>();

  std::mutex mutex_;  // taken before the pool's
  std::condition_variable wake_;
  std::deque<Chunk> queue_;
  JournalPoint end_;  // of what is durable
  bool finishing_ = false;
  bool rest_wanted_ = false;
  bool gathering_ = false;  // the thread waits for more
  size_t gathered_ = 0;     // bytes added since it last took some

  std::atomic<bool> stopping_{false};
  std::atomic<bool> urged_{false};
  std::atomic<bool> resting_{false};
  std::atomic<uint64_t> freed_{0};
  std::atomic<uint64_t> checkpoints_{0};
  std::atomic<uint64_t> read_back_{0};
  std::atomic<int> error_{0};
  std::atomic<const char*> failed_call_{""};

  // The thread's own.
  JournalPoint position_;  // everything before is submitted
  uint64_t replay_end_ = 0;
  bool replaying_ = true;
  uint64_t since_bytes_ = 0;  // submitted since the last checkpoint
  int64_t since_ns_ = 0;      // when the first of them was
  int64_t checked_ns_ = 0;    // when the last checkpoint was
  std::unique_ptr<JournalReader> reader_;
};

}  // namespace holdfast::replica
