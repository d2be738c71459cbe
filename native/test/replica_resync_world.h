#pragma once
#include <doctest/doctest.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "replica/changes.h"
#include "replica/resync.h"
#include "test/replica_copy.h"

/** A stream from a source to a target in one process: what is appended is applied by a thread. */
namespace holdfast::replica::test {

class Wire final : public Log, public ResyncStream {
 public:
  Wire(Life& target, Locks& locks, uint64_t size = 4u << 20)
      : size_(size), target_(target), changes_(target.tree, target.ids, nullptr), locks_(locks) {
    REQUIRE(changes_.begin(ApplyMode::resync) == 0);
    changes_.on_missing([this](const Missing& missing) { report(missing); });
    thread_ = std::thread([this] { run(); });
  }
  ~Wire() override { end(); }

  void hears(Resync* resync) { resync_ = resync; }
  /** Applies what waits; what failed, if anything did. */
  std::string end() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
      paused_ = false;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
    return said_;
  }
  /** Afterwards: the orphanage is emptied. */
  int end_resync() { return changes_.end_resync(nullptr); }

  /** Applies nothing from now on, or again. */
  void pause(bool paused) {
    const std::lock_guard lock(mutex_);
    paused_ = paused;
    changed_.notify_all();
  }
  /** What was not applied is lost, with what the target would have said of it, and is dirty. */
  void lose(Dirty& dirty) {
    std::deque<std::vector<uint8_t>> lost;
    std::vector<Waiter> waiters;
    {
      const std::lock_guard lock(mutex_);
      lost.swap(queue_);
      used_ = 0;
      waiters.swap(waiters_);
      losses_++;
    }
    for (const auto& bytes : lost) {
      Record record;
      REQUIRE(parse_record(bytes, record) == ParseStatus::ok);
      dirty.touch(record);
    }
    for (const Waiter& each : waiters) each.done(each.context, each.argument, 0);
  }

  // Log
  bool reserve(size_t bytes, const Waiter& ready) override {
    const std::lock_guard lock(mutex_);
    if (used_ + reserved_ + bytes > size_) {
      waiters_.push_back(ready);
      refused_++;
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
    RecordHead head{};
    head.kind = static_cast<uint16_t>(kind);
    head.flags = flags;
    head.file = file;
    measure_payload(payload, head);
    std::vector<uint8_t> bytes(record_size(head.payload_size));
    const std::lock_guard lock(mutex_);
    write_record(bytes.data(), head, payload, tail_, 1);
    reserved_ -= bytes.size();
    used_ += bytes.size();
    most_used_ = std::max(most_used_, used_);
    kinds_[static_cast<size_t>(kind)]++;
    queue_.push_back(std::move(bytes));
    changed_.notify_all();
    return tail_.lsn;
  }
  Lsn last() const override {
    const std::lock_guard lock(mutex_);
    return tail_.lsn;
  }
  void push() override {}
  bool sync(Lsn, const Waiter&) override { return true; }
  bool strict() const override { return false; }
  bool receipt(Lsn, const Waiter&) override { return true; }
  bool peer_space(uint32_t, uint64_t&, uint64_t&, uint32_t&, uint64_t&, uint64_t&) override {
    return false;
  }
  void local_failed(int, const char*) override {}

  // ResyncStream
  Lsn applied() const override { return applied_; }
  uint64_t ring_used() const override {
    const std::lock_guard lock(mutex_);
    return used_;
  }
  uint64_t ring_size() const override { return size_; }
  int64_t change_p99_ns() const override { return 0; }

  uint64_t reserved() const {
    const std::lock_guard lock(mutex_);
    return reserved_;
  }
  uint64_t most_used() const {
    const std::lock_guard lock(mutex_);
    return most_used_;
  }
  uint64_t refused() const {
    const std::lock_guard lock(mutex_);
    return refused_;
  }
  uint64_t records(Kind kind) const {
    const std::lock_guard lock(mutex_);
    return kinds_[static_cast<size_t>(kind)];
  }
  std::atomic<uint64_t> adopted{0};

 private:
  void report(const Missing& missing) {
    if (missing.adopted) adopted++;
    MissingBody body{missing.file, missing.parent, static_cast<uint32_t>(missing.name.size()),
                     missing.adopted ? uint32_t{missing_adopted} : 0};
    std::vector<uint8_t> bytes(sizeof body + missing.name.size());
    std::memcpy(bytes.data(), &body, sizeof body);
    std::memcpy(bytes.data() + sizeof body, missing.name.data(), missing.name.size());
    if (!resync_.load()->missing(bytes) && said_.empty()) said_ = "a report is refused";
  }

  void one(const Record& record) {
    if (record.kind == Kind::check) {
      CheckBody body;
      std::span<const uint8_t> hashes;
      CheckResult result{};
      int error = changes_.flush_times(record.head.file);
      if (error != 0 || !parse_check(record.data, body, hashes)) said_ = "check";
      if (compare(target_.tree, target_.ids, record.head.file, body, hashes, result)) return;
      result.run = body.run;
      result.lsn = record.head.lsn;
      const auto* bytes = reinterpret_cast<const uint8_t*>(&result);
      resync_.load()->differs({bytes, sizeof result});
      return;
    }
    if (const int error = changes_.apply(record); error != 0 && said_.empty()) {
      said_ = "record " + std::to_string(record.head.lsn) + " of kind " +
              std::to_string(record.head.kind) + ": " + changes_.call() + ": " +
              std::strerror(error);
    }
  }

  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return ending_ || (!queue_.empty() && !paused_); });
      if (queue_.empty()) {
        if (ending_) return;
        continue;
      }
      const std::vector<uint8_t> bytes = std::move(queue_.front());
      queue_.pop_front();
      const uint64_t losses = losses_;
      lock.unlock();
      Record record;
      if (parse_record(bytes, record) != ParseStatus::ok) said_ = "a record is none";
      one(record);
      if (const int error = changes_.flush_times(); error != 0) said_ = "flush_times";
      std::vector<Waiter> waiters;
      lock.lock();
      if (losses == losses_) used_ -= bytes.size();
      applied_ = record.head.lsn;
      waiters.swap(waiters_);
      lock.unlock();
      for (const Waiter& each : waiters) each.done(each.context, each.argument, 0);
      lock.lock();
    }
  }

  const uint64_t size_;
  Life& target_;
  Changes changes_;
  Locks& locks_;
  std::atomic<Resync*> resync_{nullptr};
  std::string said_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::vector<uint8_t>> queue_;
  std::vector<Waiter> waiters_;
  Tail tail_;
  uint64_t used_ = 0, reserved_ = 0, most_used_ = 0, refused_ = 0, losses_ = 0;
  uint64_t kinds_[20] = {};
  bool ending_ = false, paused_ = false;
  std::atomic<Lsn> applied_{0};
  std::thread thread_;
};

/** A resync from one to the other, from beginning to end. */
struct Rejoin {
  Rejoin(Life& source, Life& target, uint64_t ring = 4u << 20)
      : locks(std::make_unique<Locks>()),
        wire(target, *locks, ring),
        resync(source.tree, source.ids, *locks, wire, wire, dirty, events) {
    wire.hears(&resync);
  }
  ~Rejoin() {
    resync.stop();
    wire.end();
  }

  void start(ResyncOptions options = {}) {
    {
      const std::lock_guard lock(mutex);
      over = false;
    }
    resync.start(
        options, [this] { finish(""); },
        [this](int error, const char* call) {
          finish(std::string(call) + ": " + std::strerror(error));
        });
  }
  /** Until it is whole; what went wrong, if anything did. */
  std::string wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return over; });
    return outcome;
  }
  bool is_over() {
    const std::lock_guard lock(mutex);
    return over;
  }
  /** Waits, applies what is left, empties the orphanage. */
  std::string finish_all() {
    std::string said = wait();
    resync.stop();
    if (said.empty()) said = wire.end();
    if (said.empty() && wire.end_resync() != 0) said = "end_resync";
    if (said.empty() && wire.reserved() != 0) said = "room is left reserved";
    return said;
  }
  std::string run(ResyncOptions options = {}) {
    start(options);
    return finish_all();
  }

  std::unique_ptr<Locks> locks;
  NoEvents events;
  Dirty dirty;
  Wire wire;
  Resync resync;

 private:
  void finish(const std::string& what) {
    const std::lock_guard lock(mutex);
    over = true;
    outcome = what;
    changed.notify_all();
  }
  std::mutex mutex;
  std::condition_variable changed;
  bool over = false;
  std::string outcome;
};

/** The application on the source: makes the changes of a history under the locks, and records. */
class Application {
 public:
  Application(Life& source, Rejoin& rejoin)
      : changes_(source.tree, source.ids, nullptr), rejoin_(rejoin) {
    REQUIRE(changes_.begin(ApplyMode::normal) == 0);
  }

  /** Makes the changes [first, end) of the history. Empty, or what failed. */
  std::string make(const History& history, size_t first, size_t end) {
    std::span<const uint8_t> left = history.records(first, end);
    for (; !left.empty();) {
      Record record;
      if (parse_record(left, record) != ParseStatus::ok) return "a record is none";
      if (!one(record, left)) return said_;
      left = left.subspan(record.head.size);
    }
    return "";
  }

 private:
  bool one(const Record& record, std::span<const uint8_t> bytes) {
    Log& log = rejoin_.wire;
    while (!log.reserve(record.head.size, Waiter{[](void*, uint64_t, int) {}, nullptr, 0})) {
      std::this_thread::yield();
    }
    const FileId file = record.head.file;
    FileId more[3] = {};
    if (record.kind == Kind::create) more[0] = record.create.parent;
    if (record.kind == Kind::link) more[0] = record.link.parent;
    if (record.kind == Kind::unlink) more[0] = record.unlink.parent;
    if (record.kind == Kind::rename) {
      more[0] = record.rename.parent;
      more[1] = record.rename.new_parent;
      more[2] = record.rename.replaced;
    }
    Locks& locks = *rejoin_.locks;
    const Locks::Hold hold(locks, file, more[0], more[1], more[2]);
    int error = changes_.apply(record);
    if (error == 0) error = changes_.flush_times();
    if (error != 0) {
      said_ = std::string(changes_.call()) + ": " + std::strerror(error);
      return false;
    }
    const iovec payload[] = {
        {const_cast<uint8_t*>(bytes.data()) + sizeof(RecordHead), record.head.payload_size}};
    const Lsn lsn = log.append(record.kind, record.head.flags, file, payload);
    locks.changed(file, lsn);
    for (const FileId each : more) {
      if (each != 0) locks.changed(each, lsn);
    }
    return true;
  }

  Changes changes_;
  Rejoin& rejoin_;
  std::string said_;
};

}  // namespace holdfast::replica::test
