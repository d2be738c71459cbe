#include "replica/applier.h"

#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "replica/changes.h"
#include "replica/faults.h"
#include "replica/undo.h"

namespace holdfast::replica {
namespace {

struct Item {
  Batch batch;
  bool end_of_replay = false;
};

}  // namespace

struct Applier::Impl {
  Impl(Tree& t, Ids& i, ApplierOptions o, ApplierSink& s)
      : tree(t), ids(i), options(o), sink(s), changes(t, i, o.faults) {}

  bool push(Item item);
  void loop();
  int run(const Item& item);
  int run_batch(const Batch& batch);
  int run_record(const Record& record);
  int save_undo(std::span<const uint8_t> records);
  int end_resync(const JournalPoint& end);
  int check(const Record& record);
  void report(const Record& record, int error, const char* call);
  void count();

  Tree& tree;
  Ids& ids;
  const ApplierOptions options;
  ApplierSink& sink;
  Changes changes;  // of the thread alone

  mutable std::mutex mutex;
  std::condition_variable wanted;  // something was queued, or stop
  std::condition_variable done;    // something was applied, or it failed or stopped
  std::deque<Item> queue;
  uint64_t queued = 0;  // bytes, with the batch that is being applied
  bool busy = false;
  bool stopping = false;
  bool failed = false;
  JournalPoint applied;
  JournalPoint settled;  // a replay may begin here: up to it nothing waits for the replay's end
  ApplierCounters counters;
  Lsn last_point = 0;         // of the last checkpoint
  std::atomic<Lsn> saved{0};  // of the one before: it is in the superblock by now
  uint64_t records = 0, differences = 0, run_differences = 0;  // of the thread
  bool replaying = false;                                      // of the thread
  Lsn at_lsn = 0;                                              // of the record it is at
  Record synced;                                               // of this batch; kind pad: none
  std::thread thread;
};

Applier::Applier(Tree& tree, Ids& ids, ApplierOptions options, ApplierSink& sink)
    : impl_(new Impl(tree, ids, options, sink)) {}

Applier::~Applier() {
  stop();
}

int Applier::start(const JournalPoint& from, ApplyMode mode) {
  Impl& in = *impl_;
  in.applied = in.settled = from;
  in.replaying = mode != ApplyMode::normal;
  in.changes.on_missing([&in](const Missing& what) { in.sink.missing(what, in.at_lsn); });
  if (const int error = in.changes.begin(mode); error != 0) return error;
  in.thread = std::thread([&in] { in.loop(); });
  pthread_setname_np(in.thread.native_handle(), "apply");
  return 0;
}

int Applier::begin_resync(const JournalPoint& from) {
  Impl& in = *impl_;
  // The thread waits, and takes the mutex before it does anything.
  const std::lock_guard lock(in.mutex);
  if (in.busy || !in.queue.empty() || in.failed || in.stopping) return EBUSY;
  if (const int error = in.changes.begin(ApplyMode::resync); error != 0) return error;
  in.applied = in.settled = from;
  in.last_point = 0;
  in.saved = 0;
  return 0;
}

bool Applier::submit(Batch batch) {
  return impl_->push({std::move(batch), false});
}

bool Applier::end_replay() {
  return impl_->push({{}, true});
}

bool Applier::Impl::push(Item item) {
  std::unique_lock lock(mutex);
  const auto fits = [&] { return queued < options.max_queued || failed || stopping; };
  done.wait(lock, fits);
  if (failed || stopping) return false;
  queued += item.batch.records.size();
  queue.push_back(std::move(item));
  wanted.notify_one();
  return true;
}

uint64_t Applier::queued() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->queued;
}

bool Applier::drain() {
  Impl& in = *impl_;
  std::unique_lock lock(in.mutex);
  in.done.wait(lock, [&] { return (in.queue.empty() && !in.busy) || in.failed || in.stopping; });
  return !in.failed && !in.stopping;
}

JournalPoint Applier::applied() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->applied;
}

Result<JournalPoint> Applier::checkpoint() {
  JournalPoint point;
  {
    std::lock_guard lock(impl_->mutex);
    point = impl_->settled;
  }
  impl_->saved = impl_->last_point;
  // What is applied from here on may or may not get there too: a replay bears both.
  if (const int error = impl_->tree.sync_all(); error != 0) {
    return Result<JournalPoint>::failure(error, "syncfs");
  }
  if (const int error = impl_->ids.sync(); error != 0) {
    return Result<JournalPoint>::failure(error, "fdatasync(ids)");
  }
  impl_->last_point = point.tail.lsn;
  return Result<JournalPoint>::success(point);
}

ApplierCounters Applier::counters() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->counters;
}

void Applier::stop() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->wanted.notify_all();
  impl_->done.notify_all();
  if (impl_->thread.joinable()) impl_->thread.join();
}

void Applier::Impl::loop() {
  for (;;) {
    Item item;
    {
      std::unique_lock lock(mutex);
      wanted.wait(lock, [&] { return !queue.empty() || stopping; });
      if (stopping) return;
      item = std::move(queue.front());
      queue.pop_front();
      busy = true;
    }
    const int error = run(item);
    {
      std::lock_guard lock(mutex);
      busy = false;
      failed = error != 0;
      queued -= item.batch.records.size();
      if (error == 0 && !item.end_of_replay) {
        applied = item.batch.end;
        counters.batches++;
      }
      if (error == 0 && !changes.waits()) settled = applied;
      if (failed) queue.clear();
      count();
    }
    if (error == 0) {
      const Lsn lsn = applied.tail.lsn;
      if (item.end_of_replay) {
        sink.replayed(lsn);
      } else {
        sink.applied(lsn);
      }
    }
    done.notify_all();
    if (error != 0) return;
  }
}

/** What the thread has counted, for the others. The mutex is held. */
void Applier::Impl::count() {
  counters.records = records;
  counters.differences = differences;
  counters.bytes = changes.written();
  counters.displaced = changes.displaced();
  counters.skipped = changes.skipped();
}

int Applier::Impl::run(const Item& item) {
  changes.checkpointed(saved.load());
  int error = 0;
  if (item.end_of_replay) {
    replaying = false;
    // In a resync everything goes on being forgiven.
    if (changes.mode() == ApplyMode::replay) error = changes.end_replay();
  } else {
    error = run_batch(item.batch);
    if (error < 0) return -error;  // was reported
    if (error == 0) error = changes.flush_times();
    if (error == 0 && synced.kind == Kind::synced) {
      error = end_resync(item.batch.end);
      if (error < 0) return -error;
    }
  }
  if (error != 0) report(Record(), error, changes.call());
  return error;
}

/**
 * Cut short anywhere in here, the record is applied again, in a resync still: what was removed or
 * set aside already was in no name of the source. -errno of what was reported.
 */
int Applier::Impl::end_resync(const JournalPoint& end) {
  const auto fails = [this](int error, const char* call) {
    report(synced, error, call);
    return -error;
  };
  if (changes.mode() == ApplyMode::resync) {
    const int ended =
        options.end_resync ? options.end_resync(changes, synced) : changes.end_resync(nullptr);
    if (ended != 0) return fails(ended, "end of the resync");
    if (const int error = tree.sync_all(); error != 0) return fails(error, "syncfs");
    if (const int error = ids.sync(); error != 0) return fails(error, "fdatasync(ids)");
    if (replaying) {
      // What was applied of the records behind it, before this process, is not known.
      if (const int error = changes.begin(ApplyMode::replay); error != 0) {
        return fails(error, changes.call());
      }
    }
  }
  const int error = sink.synced(synced, end);
  return error == 0 ? 0 : fails(error, "super");
}

/** How everything is that these records change, before any of them is applied. */
int Applier::Impl::save_undo(std::span<const uint8_t> left) {
  if (changes.mode() != ApplyMode::resync || options.undo == nullptr) return 0;
  if (options.faults != nullptr && options.faults->undo_skipped) return 0;
  std::vector<Record> changing;
  Record record;
  while (!left.empty()) {
    if (parse_record(left, record, true) != ParseStatus::ok) return EBADMSG;
    left = left.subspan(std::min<size_t>(record.head.size, left.size()));
    if (record.kind == Kind::pad || record.kind == Kind::check) continue;
    changing.push_back(record);
  }
  // Times that are still to be set would be saved as they are not.
  if (const int error = changes.flush_times(); error != 0) return error;
  return changing.empty() ? 0 : options.undo->before(changing);
}

void Applier::Impl::report(const Record& record, int error, const char* call) {
  sink.failed({record.head.lsn, record.head.file, record.kind, error, call});
}

/** 0, or -errno of what was reported. */
int Applier::Impl::run_batch(const Batch& batch) {
  std::span<const uint8_t> left = batch.records;
  Record record, held;
  synced = Record();
  if (const int error = save_undo(left); error != 0) {
    report(record, error, "undo");
    return -error;
  }
  bool holding = false;  // a planted bug: this record waits for the next
  while (!left.empty()) {
    if (parse_record(left, record, true) != ParseStatus::ok) {
      report(record, EBADMSG, "record");
      return -EBADMSG;
    }
    left = left.subspan(std::min<size_t>(record.head.size, left.size()));
    if (record.kind == Kind::pad) continue;
    if (options.faults != nullptr && options.faults->reorder_apply && !holding && !left.empty()) {
      held = record;
      holding = true;
      continue;
    }
    const Record* order[2] = {&record, holding ? &held : nullptr};
    if (holding && held.head.file != record.head.file) std::swap(order[0], order[1]);
    holding = false;
    for (const Record* each : order) {
      if (each == nullptr) continue;
      if (const int error = run_record(*each); error != 0) {
        report(*each, error, changes.call());
        return -error;
      }
    }
  }
  return 0;
}

int Applier::Impl::run_record(const Record& record) {
  records++;
  at_lsn = record.head.lsn;
  if (record.kind == Kind::synced) {
    synced = record;
    return 0;
  }
  return record.kind == Kind::check ? check(record) : changes.apply(record);
}

/**
 * Only what is applied as it was made can be compared: not in a replay. In a resync all is compared
 * nevertheless: what differs is then stated, and what is equal at some moment is right with the
 * records that follow.
 */
int Applier::Impl::check(const Record& record) {
  CheckBody body;
  std::span<const uint8_t> hashes;
  if (!parse_check(record.data, body, hashes)) return EBADMSG;
  if (changes.mode() == ApplyMode::replay) return 0;
  CheckResult result{};
  result.run = body.run;
  result.lsn = record.head.lsn;
  if (body.kind == static_cast<uint32_t>(Check::end)) {
    result.kind = body.kind;
    result.file = record.head.file;
    result.differences = std::exchange(run_differences, 0);
    sink.checked(result);
    return 0;
  }
  if (const int error = changes.flush_times(record.head.file); error != 0) return error;
  if (compare(tree, ids, record.head.file, body, hashes, result)) return 0;
  differences++;
  run_differences++;
  sink.checked(result);
  return 0;
}

}  // namespace holdfast::replica
