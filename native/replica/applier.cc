#include "replica/applier.h"

#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "replica/changes.h"
#include "replica/faults.h"

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
  ApplierCounters counters;
  Lsn last_point = 0;         // of the last checkpoint
  std::atomic<Lsn> saved{0};  // of the one before: it is in the superblock by now
  uint64_t records = 0, differences = 0, run_differences = 0;  // of the thread
  std::thread thread;
};

Applier::Applier(Tree& tree, Ids& ids, ApplierOptions options, ApplierSink& sink)
    : impl_(new Impl(tree, ids, options, sink)) {}

Applier::~Applier() {
  stop();
}

int Applier::start(const JournalPoint& from, bool replay) {
  impl_->applied = from;
  if (const int error = impl_->changes.begin(replay ? ApplyMode::replay : ApplyMode::normal);
      error != 0)
    return error;
  impl_->thread = std::thread([this] { impl_->loop(); });
  pthread_setname_np(impl_->thread.native_handle(), "apply");
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
  const JournalPoint point = applied();
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
    error = changes.end_replay();
  } else {
    error = run_batch(item.batch);
    if (error < 0) return -error;  // was reported
    if (error == 0) error = changes.flush_times();
  }
  if (error != 0) report(Record(), error, changes.call());
  return error;
}

void Applier::Impl::report(const Record& record, int error, const char* call) {
  sink.failed({record.head.lsn, record.head.file, record.kind, error, call});
}

/** 0, or -errno of what was reported. */
int Applier::Impl::run_batch(const Batch& batch) {
  std::span<const uint8_t> left = batch.records;
  Record record, held;
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
  return record.kind == Kind::check ? check(record) : changes.apply(record);
}

/** Only what is applied as it was made can be compared: not in a replay. */
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
