#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <random>
#include <set>

#include "replica_peer.h"

// A distant copy under load and accidents, against a model: each file is a number that every change
// makes one higher. A copy that follows must see each number; one in a run may miss some, and must
// have them all when it counts again.

using namespace holdfast::replica;
using namespace holdfast::replica::test;
using holdfast::boot_ns;
using holdfast::ns_per_s;

namespace {

constexpr size_t files = 48;
constexpr size_t payload = 8192;
constexpr Lsn beginning = Lsn{1} << 41;

struct Change {
  FileId file;
  uint64_t value;
};

/** The primary's files, and the stating of what is dirty, by a thread as in the product. */
class Numbers final : public Rejoining {
 public:
  ~Numbers() override { stop(); }

  void attach(Link& link) { link_ = &link; }
  /** One change; `order` as the fanout's mutex. */
  void change(FileId file) {
    const std::lock_guard lock(locks_[file]);
    values_[file]++;
    const std::lock_guard order(order_);
    history_.push_back({file, values_[file]});
    std::vector<uint8_t> bytes = body(file);
    const iovec part{bytes.data(), bytes.size()};
    link_->offer(Kind::check, 0, file, {&part, 1}, history_.size());
    link_->push();
  }
  void compare_streams() {
    const std::lock_guard order(order_);
    link_->reached(history_.size());
  }
  Change at(Lsn main) {
    const std::lock_guard order(order_);
    return history_[main - 1];
  }
  uint64_t value(FileId file) {
    const std::lock_guard lock(locks_[file]);
    return values_[file];
  }

  void touch(const Record& record) override {
    if (record.kind != Kind::check) return;
    const std::lock_guard lock(mutex_);
    dirty_.insert(record.head.file);
  }
  void touched(const Marked&) override {}
  void own_marks() override { compare_all(); }
  void compare_all() override {
    const std::lock_guard lock(mutex_);
    for (FileId file = 1; file < files; file++) dirty_.insert(file);
  }
  void first_copy() override { compare_all(); }
  void clear() override {
    const std::lock_guard lock(mutex_);
    dirty_.clear();
  }
  void follows(bool peer) override { follows_ = peer; }
  bool nothing_dirty() const override {
    const std::lock_guard lock(mutex_);
    return dirty_.empty();
  }
  bool known() const override { return true; }
  void start(uint64_t, std::function<void()> whole,
             std::function<void(int, const char*)>) override {
    stop();
    stopping_ = false;
    thread_ = std::thread([this, whole] {
      if (state_all()) whole();
    });
  }
  void stop() override {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }
  bool missing(std::span<const uint8_t>) override { return true; }
  void differs(std::span<const uint8_t>) override {}
  const ResyncProgress& progress() const override { return progress_; }

  std::atomic<bool> follows_{true};

 private:
  std::vector<uint8_t> body(FileId file) const {
    std::vector<uint8_t> out(payload, 0x55);
    std::memcpy(out.data(), &values_[file], sizeof values_[file]);
    return out;
  }
  bool take(FileId& file) {
    const std::lock_guard lock(mutex_);
    if (dirty_.empty()) return false;
    file = *dirty_.begin();
    dirty_.erase(dirty_.begin());
    return true;
  }
  void give_back(FileId file) {
    const std::lock_guard lock(mutex_);
    dirty_.insert(file);
  }
  void pause() const { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }
  bool state_all() {
    Lsn last = 0;
    while (!stopping_) {
      FileId file = 0;
      if (!take(file)) {
        if (link_->applied() >= last) return true;
        pause();
        continue;
      }
      if (!state(file, last)) return false;
    }
    return false;
  }
  bool state(FileId file, Lsn& last) {
    const Waiter nobody{[](void*, uint64_t, int) {}, nullptr, 0};
    while (!link_->reserve(record_size(payload), nobody)) {
      if (stopping_) return give_back(file), false;
      pause();
    }
    const std::lock_guard lock(locks_[file]);
    std::vector<uint8_t> bytes = body(file);
    const iovec part{bytes.data(), bytes.size()};
    last = link_->append(Kind::check, 0, file, {&part, 1});
    link_->push();
    return true;
  }

  Link* link_ = nullptr;
  std::array<std::mutex, files> locks_;
  std::array<uint64_t, files> values_{};
  std::mutex order_;
  std::vector<Change> history_;
  mutable std::mutex mutex_;
  std::set<FileId> dirty_;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  ResyncProgress progress_;
};

/** The copy's files. */
class Copied {
 public:
  void take(const Record& record, bool forgives) {
    if (record.kind != Kind::check) return;
    uint64_t value = 0;
    std::memcpy(&value, record.data.data(), sizeof value);
    const std::lock_guard lock(mutex_);
    uint64_t& mine = values_[record.head.file];
    if (!forgives && value != mine + 1) gaps_++;
    mine = value;
  }
  uint64_t value(FileId file) {
    const std::lock_guard lock(mutex_);
    return values_[file];
  }
  uint64_t gaps() const { return gaps_; }

 private:
  std::mutex mutex_;
  std::array<uint64_t, files> values_{};
  std::atomic<uint64_t> gaps_{0};
};

struct Outcome {
  uint64_t gaps = 0, wrong = 0, early = 0, different = 0, resyncs = 0, diverted = 0;
  bool ended = false;
};

Outcome run(uint64_t seed, int rounds, bool planted = false) {
  std::mt19937_64 random(seed);
  Numbers numbers;
  Copied copied;
  Peer peer;
  peer.taken = [&](const Record& record, bool forgives) { copied.take(record, forgives); };
  peer.acks = Peer::Acks::at_once;
  peer.begin({beginning, 0, 77}, {{1, beginning, 1, 0}});
  Primary primary(min_ring);
  primary.faults.divert_forgets = planted;
  SuperState state;
  state.node = 1;
  state.state = DiskState::in_sync;
  state.epoch = 1;
  state.required_peer = 0;
  state.last = {beginning, 0, 77};
  state.base.lsn = beginning;
  add_epoch(state, {1, beginning, 1, 0});
  REQUIRE(primary.super.save(state) == 0);
  primary.ring.reset(state.last);
  Outcome out;
  Lsn checked = 0;
  LinkOptions options = primary.options(peer.address());
  options.distant = true;
  options.rejoining = &numbers;
  options.note_ms = 5;
  options.marks_wait = [] { return true; };
  options.compare_streams = [&] { numbers.compare_streams(); };
  options.peer_has = [&](Lsn main) {
    // What the marks are told that it has, it has.
    for (; checked < main; checked++) {
      const Change change = numbers.at(checked + 1);
      if (copied.value(change.file) < change.value) out.early++;
    }
  };
  numbers.attach(primary.link);
  REQUIRE(primary.link.start(options).ok());
  primary.link.serving();
  // Once for sure: more than its ring holds.
  peer.deaf = true;
  for (int n = 0; n < 1500; n++) numbers.change(1 + random() % (files - 1));
  for (int round = 0; round < rounds; round++) {
    const auto what = random() % 8;
    if (what == 0) primary.link.cut(static_cast<int64_t>(random() % 20));
    if (what == 1) peer.crash();
    peer.deaf = what == 2 || what == 3;
    if (what == 4) REQUIRE(primary.link.begin_epoch(1 + static_cast<uint64_t>(round)) == 0);
    for (auto n = random() % 900; n > 0; n--) numbers.change(1 + random() % (files - 1));
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 12));
  }
  peer.deaf = false;
  for (const int64_t until = boot_ns() + 60 * ns_per_s; boot_ns() < until && !out.ended;) {
    const LinkStatus now = primary.link.status();
    out.ended = now.in_sync && now.durable == now.last && numbers.follows_;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  primary.link.stop(0);
  for (FileId file = 1; file < files; file++) {
    if (copied.value(file) != numbers.value(file)) out.different++;
  }
  out.gaps = copied.gaps();
  out.wrong = peer.wrong();
  out.resyncs = peer.resyncs();
  out.diverted = primary.link.status().diverted;
  return out;
}

}  // namespace

TEST_CASE("distant model: whatever happens, a copy that follows has each change, and all at last") {
  uint64_t resyncs = 0, diverted = 0;
  for (uint64_t seed = 1; seed <= 3; seed++) {
    CAPTURE(seed);
    const Outcome out = run(seed, 60);
    CHECK(out.ended);
    CHECK(out.gaps == 0);
    CHECK(out.wrong == 0);
    CHECK(out.early == 0);
    CHECK(out.different == 0);
    resyncs += out.resyncs;
    diverted += out.diverted;
  }
  // Else nothing was tried.
  CHECK(resyncs >= 3);
  CHECK(diverted > 0);
}

TEST_CASE("distant model: a planted bug that forgets what is diverted is found") {
  // What is diverted may be changed again before it is missed.
  bool found = false;
  for (uint64_t seed = 1; seed <= 20 && !found; seed++) {
    const Outcome out = run(seed, 30, true);
    found = out.gaps + out.different + out.early > 0;
  }
  CHECK(found);
}
