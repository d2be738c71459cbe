#include "replica/marks.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "common/clock.h"
#include "replica/ids.h"
#include "replica/marks_generation.h"

namespace holdfast::replica {
namespace {

/** Who writes a file in sequence waits once for so many regions. */
constexpr uint32_t regions_ahead = 8;

int sync_folder(const std::string& folder) {
  const Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd.valid() && fsync(fd.get()) == 0 ? 0 : errno;
}

/** Marks that threads wait for together. */
struct Batch {
  std::vector<Mark> marks;
  bool done = false;
  int error = 0;
};

}  // namespace

void MarkSet::data(FileId file, uint64_t from, uint64_t to) {
  if (from >= to) return;
  const uint64_t first = from / mark_region;
  const uint64_t last = (to - 1) / mark_region;
  if (last - first >= regions_max || last >= mark_whole) return whole(file);
  for (uint64_t region = first; region <= last; region++) {
    add({file, static_cast<uint32_t>(region), uint32_t(MarkWhat::data)});
  }
}

struct Marks::Impl {
  Impl(Ids& i, MarksOptions o) : ids(i), options(std::move(o)) {
    const bool only_peer = options.faults != nullptr && options.faults->marks_forget_distant;
    copies = only_peer ? 1 : std::min(options.copies, max_mark_copies);
  }

  MarkGeneration* enter(MarkShard*& shard);
  int wait_for(const Mark* marks, size_t count);
  void commit(std::unique_lock<std::mutex>& lock);
  int write(const std::vector<Mark>& wanted);
  std::vector<Mark> missing(const MarkGeneration& in, const std::vector<Mark>& wanted) const;
  int make_room(size_t most);
  int give_up();
  int begin();
  int end_due(std::unique_lock<std::mutex>& lock);
  std::vector<MarkGeneration*> find_done();
  int forget(const std::vector<MarkGeneration*>& done);
  void run(Marks& marks);

  Ids& ids;
  const MarksOptions options;
  std::string folder;
  std::atomic<MarkGeneration*> current{nullptr};
  uint32_t copies = 1;
  std::array<std::atomic<Lsn>, max_mark_copies> durable{};  // of each copy
  std::atomic<uint64_t> writes{0};

  mutable std::mutex mutex;
  std::condition_variable changed;
  std::condition_variable ended;
  bool committing = false;  // somebody writes; the newest generation and its file are theirs
  std::shared_ptr<Batch> batch = std::make_shared<Batch>();
  uint32_t keeping = 0;  // a bit of each copy for which nothing may go
  bool stopping = false;
  uint64_t number = 0;                               // of the newest generation; the committer's
  std::atomic<uint64_t> old_marks{0};                // of all but the newest
  std::vector<std::unique_ptr<MarkGeneration>> all;  // the last is the newest
  std::vector<std::unique_ptr<MarkGeneration>> spare;
  std::mutex settling;
  std::thread thread;
};

/** Counts the caller in, so that the generation stays; nullptr: there is none. */
MarkGeneration* Marks::Impl::enter(MarkShard*& shard) {
  const size_t mine = my_mark_shard();
  for (;;) {
    MarkGeneration* now = current.load();
    if (now == nullptr) return nullptr;
    shard = &now->shards[mine];
    // Sequentially consistent, both: either who ends the generation sees this count, or we see that
    // it has ended.
    shard->inside.fetch_add(1);
    if (current.load() == now) return now;
    shard->inside.fetch_sub(1);
  }
}

int Marks::guard(const Mark* marks, size_t count, Guard& out) {
  Impl& in = *impl_;
  out.release();
  for (bool waited = false;; waited = true) {
    MarkShard* shard = nullptr;
    const MarkGeneration* now = in.enter(shard);
    if (now == nullptr) return ENODEV;
    if (now->has_all(marks, count)) {
      if (!waited) shard->guarded.fetch_add(1, std::memory_order_relaxed);
      out.inside_ = &shard->inside;
      return 0;
    }
    const bool late = in.options.faults != nullptr && in.options.faults->mark_after_write;
    if (late) {
      // Planted: they are written by the thread, some time.
      const std::lock_guard lock(in.mutex);
      in.batch->marks.insert(in.batch->marks.end(), marks, marks + count);
      out.inside_ = &shard->inside;
      return 0;
    }
    // While it waits it holds no generation: the commit may begin a new one.
    shard->inside.fetch_sub(1);
    if (const int error = in.wait_for(marks, count); error != 0) return error;
  }
}

/** Until the marks are durable in what is the newest generation then. */
int Marks::Impl::wait_for(const Mark* marks, size_t count) {
  std::unique_lock lock(mutex);
  const std::shared_ptr<Batch> mine = batch;
  mine->marks.insert(mine->marks.end(), marks, marks + count);
  while (!mine->done) {
    if (committing) {
      changed.wait(lock);
    } else {
      commit(lock);
    }
  }
  return mine->error;
}

/** Writes what waits. `lock` is held, and given up meanwhile. */
void Marks::Impl::commit(std::unique_lock<std::mutex>& lock) {
  committing = true;
  const std::shared_ptr<Batch> mine = std::move(batch);
  batch = std::make_shared<Batch>();
  lock.unlock();
  const int error = write(mine->marks);
  lock.lock();
  mine->error = error;
  mine->done = true;
  committing = false;
  changed.notify_all();
}

/** What is not marked, each once, and what comes next in files that are written in sequence. */
std::vector<Mark> Marks::Impl::missing(const MarkGeneration& in,
                                       const std::vector<Mark>& wanted) const {
  std::vector<Mark> out;
  if (in.everything.load()) return out;
  for (const Mark& mark : wanted) {
    if (in.has(mark)) continue;
    out.push_back(mark);
    if (mark.what != uint32_t(MarkWhat::data) || mark.region == 0 || mark.region == mark_whole) {
      continue;
    }
    if (!in.has({mark.file, mark.region - 1, mark.what})) continue;
    for (uint32_t ahead = 1; ahead < regions_ahead && mark.region + ahead < mark_whole; ahead++) {
      const Mark next{mark.file, mark.region + ahead, mark.what};
      if (!in.has(next)) out.push_back(next);
    }
  }
  std::ranges::sort(out);
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

int Marks::Impl::write(const std::vector<Mark>& wanted) {
  if (current.load() == nullptr) return ENODEV;
  if (missing(*current.load(), wanted).empty()) return 0;
  if (const int error = make_room(wanted.size() * regions_ahead); error != 0) return error;
  // In a new generation all of them may be missing, and files are not new that were.
  MarkGeneration& now = *current.load();
  const std::vector<Mark> marks = missing(now, wanted);
  if (marks.empty()) return 0;
  writes.fetch_add(1, std::memory_order_relaxed);
  if (const int error = now.file.add(marks); error != 0) return error;
  for (const Mark& mark : marks) now.note(mark);
  return 0;
}

/** Room in the newest generation, or a new one, or everything is marked. 0 or errno. */
int Marks::Impl::make_room(size_t most) {
  bool keep = false;
  {
    const std::lock_guard lock(mutex);
    keep = keeping != 0;
  }
  MarkGeneration* now = current.load();
  const uint64_t total = old_marks + now->carried + now->marks + most;
  // Where old ones go there are few of them, unless what lets them go is out of order.
  if (total > options.max_marks * (keep ? 1 : 2)) return give_up();
  const bool full = now->file.used() + most > options.generation_marks;
  if (full && !keep && now->file.used() > 0 && begin() != 0) return give_up();
  now = current.load();
  while (now->file.room() < most) {
    if (now->file.grow() != 0) return give_up();
  }
  return 0;
}

/** Everything counts as marked: what is known would not fit any more. */
int Marks::Impl::give_up() {
  MarkGeneration& now = *current.load();
  writes.fetch_add(1, std::memory_order_relaxed);
  const int error = now.file.add_everything();
  if (error == 0) now.everything.store(true, std::memory_order_release);
  return error;
}

/** A new generation, durable; changes are covered by it from now on. By the committer. */
int Marks::Impl::begin() {
  std::unique_ptr<MarkGeneration> next;
  {
    const std::lock_guard lock(mutex);
    if (!spare.empty()) {
      next = std::move(spare.back());
      spare.pop_back();
    }
  }
  if (!next) next = std::make_unique<MarkGeneration>();
  // Records after this one, and ids after this one, are of changes that it covers, or of those that
  // were under way: for these the generation before it stays.
  const Lsn since = options.last ? options.last() : 0;
  next->first_new = ids.allocate(options.epoch);
  const uint64_t most = options.generation_marks;
  const int error = next->file.make(folder, number + 1, next->first_new, since, most);
  const std::lock_guard lock(mutex);
  if (error != 0) {
    spare.push_back(std::move(next));
    return error;
  }
  number++;
  size_t places = 64;
  while (places < options.generation_marks * size_t{2}) places *= 2;
  next->tables.push_back(std::make_unique<MarkTable>(places));
  next->table.store(next->tables.back().get());
  next->everything.store(false);
  next->paths = {next->file.path()};
  next->marks = 0;
  next->carried = 0;
  next->begun_ns = boot_ns();
  next->guarded_before = next->guarded();
  next->idle = false;
  if (!all.empty()) {
    MarkGeneration& old = *all.back();
    old.file.close();
    old_marks += old.marks + old.carried;
  }
  all.push_back(std::move(next));
  current.store(all.back().get());
  return 0;
}

Marks::Marks(Ids& ids, MarksOptions options) : impl_(new Impl(ids, std::move(options))) {}

Marks::~Marks() {
  stop();
  delete impl_;
}

void Marks::stop() {
  Impl& in = *impl_;
  {
    const std::lock_guard lock(in.mutex);
    in.stopping = true;
    in.ended.notify_all();
  }
  if (in.thread.joinable()) in.thread.join();
}

void Marks::Impl::run(Marks& marks) {
  pthread_setname_np(pthread_self(), "hf-marks");
  const auto tick = std::chrono::milliseconds(options.tick_ms);
  std::unique_lock lock(mutex);
  while (!ended.wait_for(lock, tick, [this] { return stopping; })) {
    lock.unlock();
    marks.settle();
    lock.lock();
  }
}

Result<Marked> Marks::read(const std::string& folder) {
  const auto numbers = list_marks(folder);
  if (!numbers.ok()) return Result<Marked>::failure(numbers.error, numbers.call);
  Marked out;
  out.generations = numbers.value.size();
  out.since = numbers.value.empty() ? 0 : UINT64_MAX;
  for (const uint64_t number : numbers.value) {
    const MarkFileContent one = read_marks(marks_path(folder, number), number);
    if (one.everything) out.everything = true;
    if (one.first_new != 0 && (out.first_new == 0 || one.first_new < out.first_new)) {
      out.first_new = one.first_new;
    }
    out.since = std::min(out.since, one.since);
    out.marks.insert(out.marks.end(), one.marks.begin(), one.marks.end());
  }
  std::ranges::sort(out.marks);
  out.marks.erase(std::unique(out.marks.begin(), out.marks.end()), out.marks.end());
  return Result<Marked>::success(std::move(out));
}

int Marks::remove(const std::string& folder) {
  const auto numbers = list_marks(folder);
  if (!numbers.ok()) return numbers.error;
  int error = 0;
  for (const uint64_t number : numbers.value) {
    if (unlink(marks_path(folder, number).c_str()) != 0 && errno != ENOENT) error = errno;
  }
  return error != 0 || numbers.value.empty() ? error : sync_folder(folder);
}

Result<bool> Marks::open(const std::string& folder) {
  Impl& in = *impl_;
  in.folder = folder;
  const auto numbers = list_marks(folder);
  if (!numbers.ok()) return Result<bool>::failure(numbers.error, numbers.call);
  std::vector<std::string> paths;
  uint64_t marks = 0;
  for (const uint64_t number : numbers.value) {
    paths.push_back(marks_path(folder, number));
    marks += read_marks(paths.back(), number).marks.size();
    in.number = number;
  }
  // What an earlier process was making is not whole.
  unlink((marks_path(folder, in.number + 1) + ".new").c_str());
  if (const int error = in.begin(); error != 0) return Result<bool>::failure(error, "marks");
  MarkGeneration& first = *in.all.back();
  first.paths.insert(first.paths.end(), paths.begin(), paths.end());
  first.carried = marks;
  if (in.options.tick_ms > 0) in.thread = std::thread([&in, this] { in.run(*this); });
  return Result<bool>::success(true);
}

void Marks::peer_has(Lsn durable, uint32_t copy) {
  if (copy < impl_->copies) impl_->durable[copy].store(durable, std::memory_order_release);
}

void Marks::keep(bool all, uint32_t copy) {
  Impl& in = *impl_;
  if (copy >= in.copies) return;
  const std::lock_guard lock(in.mutex);
  in.keeping = all ? in.keeping | 1u << copy : in.keeping & ~(1u << copy);
}

bool Marks::has_old() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->all.size() > 1;
}

int Marks::clear() {
  Impl& in = *impl_;
  stop();
  const std::lock_guard settling(in.settling);
  std::unique_lock lock(in.mutex);
  in.changed.wait(lock, [&in] { return !in.committing; });
  in.current.store(nullptr);
  return in.folder.empty() ? 0 : remove(in.folder);
}

/** Ends the newest generation when it is time. 0 or errno. */
int Marks::Impl::end_due(std::unique_lock<std::mutex>& lock) {
  while (committing || !batch->marks.empty()) {
    if (committing) {
      changed.wait(lock);
    } else {
      commit(lock);
    }
  }
  const MarkGeneration* now = current.load();
  if (now == nullptr || keeping != 0) return 0;
  const bool old = boot_ns() - now->begun_ns >= options.generation_ms * ns_per_ms && now->used();
  // It has grown while all was kept.
  const bool large = now->marks > options.generation_marks;
  if (!old && !large && !now->everything) return 0;
  committing = true;
  lock.unlock();
  const int error = begin();
  lock.lock();
  committing = false;
  changed.notify_all();
  return error;
}

/** Old generations whose changes are over, and which the peer has. */
std::vector<MarkGeneration*> Marks::Impl::find_done() {
  std::vector<MarkGeneration*> old, done;
  {
    const std::lock_guard lock(mutex);
    for (size_t i = 0; i + 1 < all.size(); i++) old.push_back(all[i].get());
  }
  for (MarkGeneration* each : old) {
    if (!each->idle && each->nobody_inside()) {
      each->idle = true;
      // Asked for now: no later record is of a change that this generation covers.
      each->last = options.last ? options.last() : 0;
      each->tables.clear();
    }
    const auto has = [each](const std::atomic<Lsn>& copy) {
      return copy.load(std::memory_order_acquire) >= each->last;
    };
    if (each->idle && std::all_of(durable.begin(), durable.begin() + copies, has))
      done.push_back(each);
  }
  return done;
}

/** Deletes what is done, unless all is kept by now. 0 or errno. */
int Marks::Impl::forget(const std::vector<MarkGeneration*>& done) {
  const std::lock_guard lock(mutex);
  if (keeping != 0) return 0;
  for (MarkGeneration* each : done) {
    while (!each->paths.empty()) {
      if (unlink(each->paths.back().c_str()) != 0 && errno != ENOENT) return errno;
      each->paths.pop_back();
    }
    old_marks -= each->marks + each->carried;
    const auto at = std::ranges::find(all, each, &std::unique_ptr<MarkGeneration>::get);
    spare.push_back(std::move(*at));
    all.erase(at);
  }
  return 0;
}

int Marks::settle() {
  Impl& in = *impl_;
  const std::lock_guard settling(in.settling);
  bool keep = false;
  int begun = 0;
  {
    std::unique_lock lock(in.mutex);
    begun = in.end_due(lock);
    keep = in.keeping != 0;
  }
  const std::vector<MarkGeneration*> done = in.find_done();
  if (keep || done.empty()) return begun;
  // What they cover was in the page cache at the latest when they were found done.
  const int error = in.options.sync ? in.options.sync() : 0;
  if (error != 0) return error;
  const int forgotten = in.forget(done);
  if (forgotten != 0) return forgotten;
  // One that came back after a crash would do no harm, but make the copy look older than it is.
  const int synced = sync_folder(in.folder);
  return synced != 0 ? synced : begun;
}

MarksStatus Marks::status() const {
  const Impl& in = *impl_;
  const std::lock_guard lock(in.mutex);
  MarksStatus out;
  out.writes = in.writes.load(std::memory_order_relaxed);
  for (const auto& each : in.all) {
    out.generations += each->paths.size();
    out.guarded += each->guarded();
    out.marks += each->marks + each->carried;
    if (each->everything) out.everything = true;
  }
  for (const auto& each : in.spare) out.guarded += each->guarded();
  return out;
}

}  // namespace holdfast::replica
