#include "replica/feed.h"

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "common/clock.h"

namespace holdfast::replica {
namespace {

// Chunks that wait in memory; small ones, as each fsync makes one, share a buffer.
constexpr size_t max_chunks = 4096;
// What is read from the journal is submitted in pieces of about this size.
constexpr size_t piece_bytes = 1u << 20;
// While the journal is full: between two checkpoints, each of which may free little.
constexpr int64_t urgent_ns = 50 * ns_per_ms;
// Records come one fsync at a time. Applying is not what anybody waits for, so a few are applied
// together: two changes of threads for each would cost the processor that the next fsync needs.
constexpr std::chrono::milliseconds gather_time{1};
constexpr size_t gather_bytes = 256 * 1024;
// One buffer is the receiver's, one is about to be: the applier may not have those.
constexpr unsigned most_lent = Feed::buffers - 2;

}  // namespace

Feed::Feed(const Journal& journal, ApplyTarget& target, FeedHooks hooks)
    : journal_(journal), target_(target), hooks_(std::move(hooks)) {
  for (unsigned i = 0; i < buffers; i++) {
    pool_->all.push_back(std::make_unique<Buffer>());
    pool_->all.back()->memory = AlignedBuffer(buffer_bytes, false);
  }
}

Feed::~Feed() {
  stop();
}

void Feed::start(const JournalPoint& checkpoint, const JournalPoint& end,
                 const FeedOptions& options) {
  options_ = options;
  position_ = checkpoint;
  end_ = end;
  replay_end_ = end.cursor;
  freed_ = checkpoint.cursor;
  thread_ = std::thread([this] { run(); });
}

Feed::Buffer* Feed::take() {
  const std::lock_guard lock(mutex_);
  const std::lock_guard pool_lock(pool_->mutex);
  for (int attempt = 0; attempt < 2; attempt++) {
    for (const auto& buffer : pool_->all) {
      if (buffer->users > 0) continue;
      buffer->users = 1;
      return buffer.get();
    }
    for (const Chunk& chunk : queue_) chunk.buffer->users--;
    queue_.clear();
  }
  return nullptr;  // the receiver has more than two
}

void Feed::drop(Buffer* buffer) {
  const std::lock_guard lock(pool_->mutex);
  buffer->users--;
}

void Feed::add(Buffer* buffer, size_t offset, size_t size, const JournalPoint& at,
               const JournalPoint& end) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    end_ = end;
    gathered_ += size;
    wake = !gathering_ || gathered_ >= gather_bytes;
    if (queue_.size() < max_chunks) {
      const std::lock_guard pool_lock(pool_->mutex);
      buffer->users++;
      queue_.push_back({buffer, offset, size, at, end});
    }
  }
  if (wake) wake_.notify_one();
}

void Feed::urge() {
  {
    const std::lock_guard lock(mutex_);
    urged_ = true;
  }
  wake_.notify_one();
}

void Feed::fail(int error, const char* call) {
  int none = 0;
  {
    const std::lock_guard lock(mutex_);
    failed_call_.store(error_ == 0 ? call : failed_call(), std::memory_order_relaxed);
    error_.compare_exchange_strong(none, error);
  }
  wake_.notify_one();
  if (none == 0 && hooks_.moved) hooks_.moved();
}

void Feed::rest() {
  {
    const std::lock_guard lock(mutex_);
    rest_wanted_ = true;
  }
  wake_.notify_one();
}

void Feed::wake_up() {
  {
    const std::lock_guard lock(mutex_);
    rest_wanted_ = false;
  }
  wake_.notify_one();
}

void Feed::restart(const JournalPoint& at) {
  {
    const std::lock_guard lock(mutex_);
    for (const Chunk& chunk : queue_) drop(chunk.buffer);
    queue_.clear();
    position_ = end_ = at;
    freed_ = at.cursor;
    since_bytes_ = 0;
    gathered_ = 0;
    urged_ = false;
    reader_.reset();
    rest_wanted_ = false;
    resting_ = false;
  }
  wake_.notify_one();
}

Result<JournalPoint> Feed::finish() {
  {
    const std::lock_guard lock(mutex_);
    finishing_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  if (error() != 0) return Result<JournalPoint>::failure(error(), failed_call());
  // The applier was stopped by others.
  if (freed_ != end_.cursor) return Result<JournalPoint>::failure(ECANCELED, "apply");
  return Result<JournalPoint>::success(end_);
}

void Feed::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Feed::run() {
  std::unique_lock lock(mutex_);
  bool finished = false;
  while (!stopping_ && error_ == 0 && !finished) {
    if (due()) {
      lock.unlock();
      checkpoint();
      lock.lock();
    } else if (replaying_ && position_.cursor >= replay_end_) {
      replaying_ = false;
      lock.unlock();
      const bool taken = target_.end_replay();
      lock.lock();
      if (!taken) break;
    } else if (position_.cursor < end_.cursor) {
      if (from_memory(lock)) continue;
      uint64_t limit = queue_.empty() ? end_.cursor : queue_.front().at.cursor;
      // Not lent, since the applier has enough buffers: the same records from the journal.
      if (limit == position_.cursor) limit = queue_.front().end.cursor;
      if (replaying_) limit = std::min(limit, replay_end_);
      lock.unlock();
      from_journal(limit);
      lock.lock();
    } else if (rest_wanted_ && !finishing_) {
      stand_still(lock);
    } else {
      finished = !wait_for_work(lock);
    }
  }
  lock.unlock();
  if (finished && target_.drain()) checkpoint();
}

/** Everything was submitted: waits until it is applied, makes a checkpoint, and waits again. */
void Feed::stand_still(std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  const bool there = target_.drain() && checkpoint() && freed_ == position_.cursor;
  if (there) {
    resting_.store(true, std::memory_order_release);
    if (hooks_.moved) hooks_.moved();
  }
  lock.lock();
  if (!there) {
    // The applier failed, and says why by `fail`.
    if (error_ == 0) stopping_ = true;
    return;
  }
  wake_.wait(lock, [this] { return !rest_wanted_ || stopping_ || finishing_ || error_ != 0; });
  resting_ = false;
}

/** Waits for records or for the time of a checkpoint; false: nothing more will come. */
bool Feed::wait_for_work(std::unique_lock<std::mutex>& lock) {
  if (finishing_) return false;
  wait_for_records(lock);
  if (position_.cursor < end_.cursor) {
    gathering_ = true;
    wake_.wait_for(lock, gather_time, [this] {
      return stopping_ || finishing_ || urged_ || error_ != 0 || gathered_ >= gather_bytes;
    });
    gathering_ = false;
  }
  gathered_ = 0;
  return true;
}

void Feed::wait_for_records(std::unique_lock<std::mutex>& lock) {
  const auto ready = [this] {
    return stopping_ || finishing_ || rest_wanted_ || error_ != 0 ||
           position_.cursor < end_.cursor || due();
  };
  if (since_bytes_ == 0 && !urged_) {
    wake_.wait(lock, [&] { return ready() || urged_; });
    return;
  }
  int64_t left = since_ns_ + options_.checkpoint_ms * ns_per_ms - boot_ns();
  if (urged_) left = urgent_ns;
  wake_.wait_for(lock, std::chrono::nanoseconds(std::max<int64_t>(left, 0)), ready);
}

/** Submits the next records if they are in memory. */
bool Feed::from_memory(std::unique_lock<std::mutex>& lock) {
  while (!queue_.empty() && queue_.front().end.cursor <= position_.cursor) {
    drop(queue_.front().buffer);  // they were taken from the journal
    queue_.pop_front();
  }
  if (queue_.empty() || queue_.front().at.cursor != position_.cursor) return false;
  const Chunk chunk = queue_.front();
  if (!lend(chunk.buffer)) return false;
  queue_.pop_front();
  lock.unlock();
  reader_.reset();
  // The chunk's own use of the buffer becomes the batch's.
  std::shared_ptr<const void> memory(chunk.buffer, [pool = pool_](Buffer* buffer) {
    const std::lock_guard pool_lock(pool->mutex);
    buffer->users--;
    buffer->lent--;
  });
  submit({std::move(memory), {chunk.buffer->memory.data() + chunk.offset, chunk.size}, chunk.end});
  lock.lock();
  return true;
}

/** Counts the buffer as lent; false: the applier has as many others as it may. */
bool Feed::lend(Buffer* buffer) {
  const std::lock_guard lock(pool_->mutex);
  const auto lent = [](const std::unique_ptr<Buffer>& each) { return each->lent > 0; };
  if (buffer->lent == 0 && std::ranges::count_if(pool_->all, lent) >= most_lent) return false;
  buffer->lent++;
  return true;
}

/** Submits what the journal has before `limit`, where one write ends and another may begin. */
bool Feed::from_journal(uint64_t limit) {
  if (reader_ == nullptr) reader_ = std::make_unique<JournalReader>(journal_, position_);
  auto piece = std::make_shared<std::vector<uint8_t>>();
  const auto send = [&](const JournalPoint& end) {
    const std::span<const uint8_t> records(piece->data(), piece->size());
    read_back_ += piece->size();
    const bool taken =
        submit({std::exchange(piece, std::make_shared<std::vector<uint8_t>>()), records, end});
    if (due()) checkpoint();
    return taken && !stopping_ && error_ == 0;
  };
  for (;;) {
    Record record;
    std::span<const uint8_t> bytes;
    const Result<bool> next = reader_->next(limit, record, bytes);
    if (!next.ok()) {
      fail(next.error, next.call);
      return false;
    }
    if (!next.value) break;
    // A piece ends where a recovery could begin.
    const bool begins = reader_->start().tail.lsn + 1 == record.head.lsn;
    if (begins && piece->size() >= piece_bytes && !send(reader_->start())) return false;
    piece->insert(piece->end(), bytes.begin(), bytes.end());
    // The end of a resync ends a batch, as it ended a write (intake.h).
    if (record.kind == Kind::synced && !send(reader_->point())) return false;
  }
  if (reader_->point().cursor != limit) {
    fail(EBADMSG, "journal");  // what was durable once is not there any more
    return false;
  }
  return send(reader_->point());
}

bool Feed::submit(Batch batch) {
  const JournalPoint end = batch.end;
  const size_t size = batch.records.size();
  if (!target_.submit(std::move(batch))) {
    // The applier says why by `fail`, before or after this.
    stopping_ = true;
    return false;
  }
  position_ = end;
  if (since_bytes_ == 0) since_ns_ = boot_ns();
  since_bytes_ += size;
  return true;
}

/** True when a checkpoint is to be made now. */
bool Feed::due() const {
  const int64_t now = boot_ns();
  if (urged_ && now - checked_ns_ >= urgent_ns) return true;
  return since_bytes_ >= options_.checkpoint_bytes ||
         (since_bytes_ > 0 && now - since_ns_ >= options_.checkpoint_ms * ns_per_ms);
}

bool Feed::checkpoint() {
  const Result<JournalPoint> point = target_.checkpoint();
  checked_ns_ = boot_ns();
  since_bytes_ = 0;
  if (!point.ok()) {
    fail(point.error, point.call);
    return false;
  }
  if (point.value.cursor > freed_) {
    const int error = hooks_.save(point.value);
    if (error != 0) {
      fail(error, "super");
      return false;
    }
    urged_ = false;
    freed_.store(point.value.cursor, std::memory_order_release);
    checkpoints_++;
    if (hooks_.moved) hooks_.moved();
  }
  // What was submitted and is not applied yet needs another one.
  if (point.value.cursor < position_.cursor) {
    since_bytes_ = 1;
    since_ns_ = checked_ns_;
  }
  return true;
}

}  // namespace holdfast::replica
