#pragma once
#include <atomic>
#include <functional>
#include <mutex>
#include <set>

#include "replica/rejoin.h"

namespace holdfast::replica::test {

/** The files' side of a resync, in memory: what is dirty is a set of LSNs. */
class Files : public Rejoining {
 public:
  void touch(const Record& record) override {
    const std::lock_guard lock(mutex_);
    dirty_.insert(record.head.lsn);
  }
  void touched(const Marked& marked) override {
    const std::lock_guard lock(mutex_);
    marks_ += marked.marks.size();
  }
  void own_marks() override { own_++; }
  void compare_all() override { compares_++; }
  void first_copy() override { first_copies_++; }
  void clear() override {
    const std::lock_guard lock(mutex_);
    dirty_.clear();
  }
  void follows(bool peer) override { follows_.store(peer); }
  bool nothing_dirty() const override {
    const std::lock_guard lock(mutex_);
    return dirty_.empty();
  }
  bool known() const override { return known_.load(); }
  void start(uint64_t run, std::function<void()> whole,
             std::function<void(int, const char*)>) override {
    run_.store(run);
    whole_ = whole;
    {
      const std::lock_guard lock(mutex_);
      stated_.insert(dirty_.begin(), dirty_.end());
      dirty_.clear();
    }
    starts_++;
    if (states_.load()) whole();
  }
  void stop() override { stops_++; }
  bool missing(std::span<const uint8_t>) override { return true; }
  void differs(std::span<const uint8_t>) override {}
  const ResyncProgress& progress() const override { return progress_; }

  std::set<Lsn> dirty() const {
    const std::lock_guard lock(mutex_);
    return dirty_;
  }
  std::set<Lsn> stated() const {
    const std::lock_guard lock(mutex_);
    return stated_;
  }

  std::atomic<bool> states_{true};  // everything is stated at once
  std::atomic<bool> known_{true};
  std::atomic<bool> follows_{true};
  std::atomic<int> own_{0}, compares_{0}, first_copies_{0}, starts_{0}, stops_{0};
  std::atomic<uint64_t> run_{0}, marks_{0};
  std::function<void()> whole_;

 private:
  mutable std::mutex mutex_;
  std::set<Lsn> dirty_, stated_;
  ResyncProgress progress_;
};

}  // namespace holdfast::replica::test
