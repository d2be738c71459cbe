#pragma once
#include <atomic>

#include "replica/log.h"

namespace holdfast::replica {

/** The log of a directory that is mounted but not replicated: everything is acknowledged at once.
 */
class NullLog : public Log {
 public:
  bool reserve(size_t, const Waiter&) override { return true; }
  void release(size_t) override {}
  Lsn append(Kind, uint16_t, FileId, std::span<const iovec>) override {
    return last_.fetch_add(1, std::memory_order_relaxed) + 1;
  }
  Lsn last() const override { return last_.load(std::memory_order_relaxed); }
  void push() override {}
  bool sync(Lsn, const Waiter&) override { return true; }
  bool strict() const override { return false; }
  bool receipt(Lsn, const Waiter&) override { return true; }
  bool peer_space(uint32_t, uint64_t&, uint64_t&, uint32_t&, uint64_t&, uint64_t&) override {
    return false;
  }
  void local_failed(int, const char*) override {
    failures_.fetch_add(1, std::memory_order_relaxed);
  }
  /** Failures of the local file system so far. */
  uint64_t failures() const { return failures_.load(std::memory_order_relaxed); }

 private:
  std::atomic<Lsn> last_{0};
  std::atomic<uint64_t> failures_{0};
};

}  // namespace holdfast::replica
