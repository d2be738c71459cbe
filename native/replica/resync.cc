#include "replica/resync.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "replica/resync_pace.h"
#include "replica/stater.h"

namespace holdfast::replica {
namespace {

// Above this many pieces no directory is begun: what its names make dirty must not pile up.
constexpr uint64_t most_items = 4096;
// It is of a whole second, and not for nothing.
constexpr int64_t p99_every_ns = 100'000'000;
constexpr auto poll = std::chrono::milliseconds(1);
constexpr auto poll_most = std::chrono::milliseconds(50);

int64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

/** The log may call late, after the one who waits has gone. */
struct Bell {
  std::mutex mutex;
  std::condition_variable changed;
  uint64_t rings = 0;
  uint64_t answers = 0;  // of the log: try again

  void ring(uint64_t answer = 0) {
    const std::lock_guard lock(mutex);
    rings++;
    answers += answer;
    changed.notify_all();
  }
  uint64_t heard() {
    const std::lock_guard lock(mutex);
    return answers;
  }
};

void room_again(void* context, uint64_t, int) {
  const std::unique_ptr<std::shared_ptr<Bell>> bell(static_cast<std::shared_ptr<Bell>*>(context));
  (*bell)->ring(1);
}

}  // namespace

struct Resync::Impl {
  Impl(Tree& tree, const Ids& all_ids, Locks& locks, Log& to, ResyncStream& from, Dirty& set,
       Events& to_say, ResyncProgress& shown)
      : ids(all_ids),
        log(to),
        stream(from),
        dirty(set),
        events(to_say),
        progress(shown),
        stater(tree, all_ids, locks, to, [this](size_t bytes) { return room(bytes); }) {}

  void run();
  bool step();
  bool work(const WorkItem& item);
  bool piece(const WorkItem& item);
  bool walk_on();
  bool compare_everything();
  bool compare_one(const IdEntry& entry);
  bool one_was_wrong(int error);
  bool nothing_left();
  int room(size_t bytes);
  bool await_turn();
  bool sleep(std::chrono::nanoseconds time);
  void account();
  uint64_t in_flight();
  void touch_all_of(FileId file);

  const Ids& ids;
  Log& log;
  ResyncStream& stream;
  Dirty& dirty;
  Events& events;
  ResyncProgress& progress;
  Stater stater;

  ResyncOptions options;
  std::function<void()> whole;
  std::function<void(int, const char*)> failed;
  std::mutex thread_mutex;  // start and stop
  std::thread thread;
  std::atomic<bool> running{false};
  std::atomic<bool> stopping{false};
  const std::shared_ptr<Bell> bell = std::make_shared<Bell>();

  // The thread's own.
  std::optional<Pace> pace;
  int64_t p99_ns = 0, p99_at_ns = 0;
  std::optional<ListingWalk> walk;
  std::deque<std::pair<Lsn, uint64_t>> sent;  // bytes of statements that are not applied
  uint64_t sent_bytes = 0;
  Stated counted;
};

/** False: the resync is being stopped. */
bool Resync::Impl::sleep(std::chrono::nanoseconds time) {
  std::unique_lock lock(bell->mutex);
  const uint64_t heard = bell->rings;
  bell->changed.wait_for(lock, time, [&] { return stopping.load() || bell->rings != heard; });
  return !stopping;
}

int Resync::Impl::room(size_t bytes) {
  while (!stopping) {
    auto context = std::make_unique<std::shared_ptr<Bell>>(bell);
    const uint64_t heard = bell->heard();
    if (log.reserve(bytes, Waiter{room_again, context.get(), 0})) return 0;
    context.release();  // the log calls with it
    log.push();
    std::unique_lock lock(bell->mutex);
    bell->changed.wait(lock, [&] { return stopping.load() || bell->answers != heard; });
    lock.unlock();
    // A log that is being stopped has no room for ever, and says so at once.
    if (!sleep(poll)) break;
  }
  return ECANCELED;
}

uint64_t Resync::Impl::in_flight() {
  const Lsn applied = stream.applied();
  while (!sent.empty() && sent.front().first <= applied) {
    sent_bytes -= sent.front().second;
    sent.pop_front();
  }
  return sent_bytes;
}

/** Waits until the next piece may go. False: the resync is being stopped. */
bool Resync::Impl::await_turn() {
  for (;;) {
    if (stopping) return false;
    const int64_t now = now_ns();
    if (now - p99_at_ns >= p99_every_ns) {
      p99_ns = stream.change_p99_ns();
      p99_at_ns = now;
    }
    const int64_t due = pace->due_ns(now, p99_ns);
    progress.rate = pace->rate(now);
    const uint64_t size = stream.ring_size();
    const uint64_t share = options.ring_share != 0 ? options.ring_share : size / 4;
    // The application's changes have a quarter of the ring for themselves, whatever is in it.
    const bool full =
        in_flight() >= std::max<uint64_t>(share, 1) || stream.ring_used() > size - size / 4;
    if (due <= now && !full) return true;
    log.push();
    const auto pause = std::chrono::nanoseconds(std::max<int64_t>(due - now, 0));
    sleep(full ? std::max<std::chrono::nanoseconds>(pause, poll)
               : std::min<std::chrono::nanoseconds>(pause, std::chrono::milliseconds(250)));
  }
}

/** What was appended since the last call: to the figures, and to what is in flight. */
void Resync::Impl::account() {
  const Stated& now = stater.stated();
  const uint64_t bytes = now.bytes - counted.bytes;
  if (bytes == 0) return;
  sent.emplace_back(now.last, bytes);
  sent_bytes += bytes;
  progress.sent_bytes += bytes;
  progress.read_bytes += now.read_bytes - counted.read_bytes;
  progress.statements += now.records - counted.records;
  progress.last_statement = now.last;
  counted = now;
  pace->sent(now_ns(), bytes);
  log.push();
}

/** An error that ends the resync. */
bool Resync::Impl::one_was_wrong(int error) {
  if (error != ECANCELED || !stopping) {
    stopping = true;
    failed(error, stater.call());
  }
  return false;
}

bool Resync::Impl::walk_on() {
  const int error = stater.listing(*walk);
  account();
  if (error != 0) return one_was_wrong(error);
  if (walk->done) walk.reset();
  return true;
}

/** A range of a file: a piece of it, and the rest goes back. */
bool Resync::Impl::piece(const WorkItem& item) {
  uint64_t done = item.to;
  const int error =
      item.what == Work::data
          ? stater.data(item.file, item.from, item.to, options.piece, done)
          : stater.compare(item.file, item.from, item.to, options.piece, options.run, done);
  account();
  if (error != 0) {
    dirty.give_back(item);
    return one_was_wrong(error);
  }
  WorkItem rest = item;
  rest.from = done;
  if (done < item.to) dirty.give_back(rest);
  return true;
}

bool Resync::Impl::work(const WorkItem& item) {
  int error = 0;
  switch (item.what) {
    case Work::inode:
      error = stater.inode(item.file, dirty);
      break;
    case Work::entry:
      error = stater.entry(item.parent, item.name);
      break;
    case Work::compare_inode:
      error = stater.compare_inode(item.file, options.run);
      break;
    case Work::data:
    case Work::compare:
      return piece(item);
    case Work::listing:
      walk.emplace();
      walk->directory = item.file;
      return walk_on();
    case Work::compare_all:
      return compare_everything();
    case Work::none:
      break;
  }
  account();
  if (error == 0) return true;
  dirty.give_back(item);
  return one_was_wrong(error);
}

/** One piece. False: nothing is left for now, or the end. */
bool Resync::Impl::step() {
  if (!await_turn()) return false;
  const bool many = dirty.totals().items > most_items;
  if (walk && !many) return walk_on();
  WorkItem item;
  if (!dirty.take(item, to_the_end, many || walk)) return walk ? walk_on() : false;
  const bool makes_more = item.what == Work::listing || item.what == Work::compare_all;
  if (walk && makes_more) {
    dirty.give_back(item);
    return walk_on();
  }
  return work(item);
}

bool Resync::Impl::compare_one(const IdEntry& entry) {
  if ((entry.flags & (id_local | id_unlinked)) != 0) return true;
  // Names are stated, not compared: a hash of names does not see what has no id over there.
  if (entry.type == S_IFDIR) dirty.touch_listing(entry.id);
  if (entry.type == S_IFREG) dirty.compare_data(entry.id, 0, to_the_end);
  // A root is not compared (verify.h): state it.
  entry.id > max_root ? dirty.compare_inode(entry.id) : dirty.touch_inode(entry.id);
  while (dirty.totals().items > most_items) {
    if (!step()) return false;
  }
  return true;
}

bool Resync::Impl::compare_everything() {
  ids.for_each(
      [](void* self, const IdEntry& entry) { return static_cast<Impl*>(self)->compare_one(entry); },
      this);
  if (stopping) dirty.compare_all();
  return !stopping;
}

/** True: the target has everything. */
bool Resync::Impl::nothing_left() {
  // In this order: what it reported came before it said that it had applied.
  return stream.applied() >= progress.last_statement && !walk && dirty.empty();
}

void Resync::Impl::run() {
  pthread_setname_np(pthread_self(), "hf-resync");
  p99_at_ns = now_ns();
  p99_ns = stream.change_p99_ns();
  pace.emplace(options, p99_at_ns, p99_ns);
  bool done = false;
  std::chrono::nanoseconds pause = poll;
  while (!stopping && !done) {
    if (step()) {
      pause = poll;
      continue;
    }
    if (stopping) break;
    done = nothing_left();
    if (done || !dirty.empty()) continue;
    // The target is still at it, or not there.
    sleep(pause);
    pause = std::min<std::chrono::nanoseconds>(2 * pause, poll_most);
  }
  if (walk) dirty.touch_listing(walk->directory);
  walk.reset();
  progress.rate = 0;
  log.push();
  if (done) whole();
  running = false;
}

Resync::Resync(Tree& tree, const Ids& ids, Locks& locks, Log& log, ResyncStream& stream,
               Dirty& dirty, Events& events)
    : impl_(new Impl(tree, ids, locks, log, stream, dirty, events, progress_)) {}

Resync::~Resync() {
  stop();
  delete impl_;
}

void Resync::start(const ResyncOptions& options, std::function<void()> whole,
                   std::function<void(int error, const char* call)> failed) {
  stop();
  Impl& in = *impl_;
  const std::lock_guard lock(in.thread_mutex);
  if (progress_.run != options.run) {
    progress_.sent_bytes = progress_.read_bytes = progress_.statements = progress_.missing = 0;
    progress_.last_statement = 0;
    progress_.run = options.run;
  }
  in.options = options;
  in.whole = std::move(whole);
  in.failed = std::move(failed);
  in.sent.clear();
  in.sent_bytes = 0;
  in.stopping = false;
  in.running = true;
  in.thread = std::thread([&in] { in.run(); });
}

void Resync::stop() {
  Impl& in = *impl_;
  const std::lock_guard lock(in.thread_mutex);
  in.stopping = true;
  in.bell->ring();
  if (in.thread.joinable()) in.thread.join();
}

bool Resync::running() const {
  return impl_->running;
}

/** All that there is about a file which the target has not. */
void Resync::Impl::touch_all_of(FileId file) {
  IdEntry entry;
  if (!ids.get(file, entry)) return;
  dirty.touch_inode(file);
  if (entry.type == S_IFREG) dirty.touch_data(file, 0, to_the_end);
  if (entry.type == S_IFDIR) dirty.touch_listing(file);
}

bool Resync::missing(std::span<const uint8_t> bytes) {
  MissingBody body;
  if (bytes.size() < sizeof body) return false;
  std::memcpy(&body, bytes.data(), sizeof body);
  const std::string_view name(reinterpret_cast<const char*>(bytes.data()) + sizeof body,
                              bytes.size() - sizeof body);
  const bool good =
      body.name_size == name.size() && name.size() <= 255 && (body.parent != 0) == !name.empty() &&
      (body.file != 0 || body.parent != 0) && (body.flags & ~missing_adopted) == 0 &&
      name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
  if (!good) return false;
  progress_.missing++;
  Impl& in = *impl_;
  IdEntry entry;
  if ((body.flags & missing_adopted) != 0 && in.ids.get(body.file, entry)) {
    in.dirty.touch_inode(body.file);
    if (entry.type == S_IFREG) in.dirty.compare_data(body.file, 0, to_the_end);
    if (entry.type == S_IFDIR) in.dirty.touch_listing(body.file);
  } else if (body.file != 0) {
    in.touch_all_of(body.file);
  }
  // Last, so that it is stated after the file.
  if (body.parent != 0) in.dirty.touch_entry(body.parent, name);
  in.bell->ring();
  return true;
}

void Resync::differs(std::span<const uint8_t> body) {
  CheckResult result;
  if (body.size() != sizeof result) return;
  std::memcpy(&result, body.data(), sizeof result);
  if (result.run != progress_.run) return;
  Impl& in = *impl_;
  switch (static_cast<Check>(result.kind)) {
    case Check::data:
      if (result.offset > INT64_MAX - leaf_size) return;
      in.dirty.touch_data(result.file, result.offset, result.offset + leaf_size);
      break;
    case Check::attributes:
      if (result.error == ESTALE) in.touch_all_of(result.file);
      in.dirty.touch_inode(result.file);
      break;
    case Check::entries:
      in.dirty.touch_listing(result.file);
      break;
    case Check::end:
      return;
  }
  in.bell->ring();
}

}  // namespace holdfast::replica
